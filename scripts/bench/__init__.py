"""What `benchmark.py` measures: sizes, one step of each library, the suites, the record."""
