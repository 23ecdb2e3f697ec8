# Two commands do everything on a fresh machine: `make demo` and `make test`. Each fills its own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all sanitize exhaustive lint docs hooks bench evidence clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Rebuilt when the declared dependencies or the C++ loops change; pip skips what is already there.
$(VENV)/.installed: setup.cfg setup.py pyproject.toml $(wildcard kbptt/engine/native/*.?pp kbptt/engine/native/*/*.hpp)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

demo: $(VENV)/.installed  ## compare five methods on handwritten digits: four minutes, with pictures
	$(BIN)/python scripts/demo.py

# Two processes, each taking whole files: compiled functions are shared within a file. The last lines
# are the coverage of the core and the slowest files beside the record in benchmarks/.
test: $(VENV)/.installed  ## the tests, with their coverage: about 20 minutes on two cores
	mkdir -p build
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --junitxml=build/tests.xml
	$(BIN)/python scripts/test_times.py build/tests.xml

# What takes minutes (killed runs, simulated tables, XLA, every float); prints how long each took.
test-slow: $(VENV)/.installed  ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --durations=0

# What a release has to pass.
test-all: lint test test-slow sanitize  ## what a release has to pass

# The C++ loops with every access, overflow and race checked; 2,500 combinations among the tests.
NATIVE := kbptt/engine/native
LOOPS := $(addprefix $(NATIVE)/,avx512.cpp avx2.cpp baseline.cpp dispatch.cpp)
SANITIZED := build/native_sanitized.so
sanitize: $(VENV)/.installed  ## the C++ loops with every access, overflow and race checked
	mkdir -p build
	g++ -O1 -g -std=c++17 -fsanitize=thread -I$(NATIVE) tests/engine/native/threads.cpp $(LOOPS) \
		-o build/threads -lpthread
	build/threads
	g++ -O1 -g -std=c++17 -fPIC -shared -fsanitize=address,undefined \
		-fno-sanitize-recover=undefined $(LOOPS) $(NATIVE)/module.cpp -o $(SANITIZED) \
		-I$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('include'))")
	KBPTT_NATIVE_LIBRARY=$(SANITIZED) ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
		$(BIN)/python -m pytest -m "slow or not slow" tests/engine/test_native.py \
		tests/engine/test_native_fuzz.py tests/engine/test_native_threads.py \
		tests/layers/test_normalization.py

# tanh and sigmoid of the C++ loops for each of the 2^32 floats: minutes.
exhaustive: $(VENV)/.installed  ## tanh and sigmoid of the C++ loops for every float
	$(BIN)/python -m pytest -m slow tests/engine/test_native_accuracy.py

lint: $(VENV)/.installed  ## formatting, linter, types, compiler warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/types/check.py
	for compiler in g++ clang++; do \
		! command -v $$compiler >/dev/null || $$compiler -std=c++17 -Wall -Wextra -Wpedantic -Werror \
			-fsyntax-only -I$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('include'))") \
			$(NATIVE)/*.cpp || exit 1; \
	done

# The site, in build/docs: every warning is an error. The notebook runs, so it takes two minutes.
docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo "Open build/docs/index.html"

# Every suite, and its change against the latest record in benchmarks/: one to two hours.
# `make bench BENCH="--suite speed sizes --quick"` for less; --record writes the record of a release.
BENCH ?= --suite all
bench: $(VENV)/.installed  ## every benchmark beside the record of the last release: one to two hours
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python scripts/benchmark.py $(BENCH)

# Nine published results, repeated: hours, but it goes on after an interruption. The text of one part
# is given by its path: `make evidence EVIDENCE="--text time_machine.txt"`; --list shows the parts.
EVIDENCE ?=
evidence: $(VENV)/.installed  ## nine published results, reproduced: up to four hours, resumable
	$(BIN)/python scripts/evidence.py $(EVIDENCE)

# Checks what is committed, at each commit.
hooks: $(VENV)/.installed  ## install the pre-commit hooks
	$(BIN)/pre-commit install

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build *.egg-info
