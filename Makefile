# Two commands do everything on a fresh machine: `make demo` and `make test`. Each fills its own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow lint bench clean

# Rebuilt when the declared dependencies change; pip skips what is already there.
$(VENV)/.installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo.py

# Two processes, each taking whole files: compiled functions are shared within a file.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

# What takes minutes: killed runs, many simulated tables, real clusters.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python scripts/benchmark.py

clean:
	rm -rf $(VENV) build *.egg-info
