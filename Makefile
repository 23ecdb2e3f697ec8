# Two commands do everything on a fresh machine: `make demo` and `make test`. Each fills its own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow sanitize lint bench clean

# Rebuilt when the declared dependencies or the C loops change; pip skips what is already there.
$(VENV)/.installed: setup.cfg setup.py pyproject.toml $(wildcard kbptt/engine/csrc/*)
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

# The C loops with every access and overflow checked.
SANITIZED := build/native_sanitized.so
sanitize: $(VENV)/.installed
	mkdir -p build
	gcc -O1 -g -std=gnu11 -fPIC -shared -fsanitize=address,undefined -fno-sanitize-recover=undefined \
		kbptt/engine/csrc/native.c -o $(SANITIZED)
	KBPTT_NATIVE_LIBRARY=$(SANITIZED) ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		$(BIN)/python -m pytest tests/engine/test_native.py tests/layers/test_normalization.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python scripts/benchmark.py

clean:
	rm -rf $(VENV) build *.egg-info
