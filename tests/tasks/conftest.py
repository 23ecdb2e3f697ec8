"""The task `csv` over contents that a test gives."""

import pytest

from kbptt import tasks


@pytest.fixture
def load(tmp_path):
    """A function from the content of a file and options to the task."""
    path = tmp_path / "series.csv"

    def load(content, **options):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tasks.get("csv", path=path, **{"length": 3, **options})

    return load
