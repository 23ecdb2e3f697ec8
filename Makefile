# Two commands do everything on a fresh machine: `make demo` and `make test`. Each fills its own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-all sanitize exhaustive lint bench clean

# Rebuilt when the declared dependencies or the C loops change; pip skips what is already there.
$(VENV)/.installed: setup.cfg setup.py pyproject.toml $(wildcard kbptt/engine/native/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo.py

# Two processes, each taking whole files: compiled functions are shared within a file.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

# What takes minutes (killed runs, simulated tables, XLA, every float); prints how long each took.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --durations=0

# What a release has to pass.
test-all: lint test test-slow sanitize

# The C loops with every access, overflow and race checked; 2,500 combinations among the tests.
SANITIZED := build/native_sanitized.so
CSRC := kbptt/engine/native
sanitize: $(VENV)/.installed
	mkdir -p build
	gcc -O1 -g -std=gnu11 -fsanitize=thread -I$(CSRC) tests/engine/csrc/threads.c \
		-o build/threads -lm -lpthread
	build/threads
	gcc -O1 -g -std=gnu11 -fPIC -shared -fsanitize=address,undefined -fno-sanitize-recover=undefined \
		$(CSRC)/native.c -o $(SANITIZED)
	KBPTT_NATIVE_LIBRARY=$(SANITIZED) ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		$(BIN)/python -m pytest -m "slow or not slow" tests/engine/test_native.py \
		tests/engine/test_native_fuzz.py tests/layers/test_normalization.py

# tanh and sigmoid of the C loops for each of the 2^32 floats: minutes.
exhaustive: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow tests/engine/test_native_accuracy.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/types/check.py

bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python scripts/benchmark.py

clean:
	rm -rf $(VENV) build *.egg-info
