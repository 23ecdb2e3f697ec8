# Two commands do everything on a fresh machine: `make demo` and `make test`. Each fills its own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all wheel test-wheel test-interpreters test-lowest cross sanitize exhaustive lint \
	docs hooks bench evidence clean

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
test: $(VENV)/.installed  ## the tests, with their coverage: about 30 minutes on two cores
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
LOOPS := $(filter-out %/module.cpp,$(wildcard $(NATIVE)/*.cpp))
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

# The packages of a release, in dist/: the source distribution, and the wheel from it, audited.
wheel:  ## the packages of a release, in dist/
	$(PYTHON) scripts/packages.py build

# Outside the tree, in a fresh environment: the wheel without a compiler, the source with one.
test-wheel:  ## the packages in dist/, outside the tree
	$(PYTHON) scripts/packages.py test

# The suite on each Python that is found, those of pyenv too; the others are named and left out. For
# less of it: `make test-interpreters TESTS=tests/layers`.
PYENV := $(wildcard $(HOME)/.pyenv/versions/3.*/bin/python)
test-interpreters: $(VENV)/.tox  ## the suite on every Python that is found
	$(BIN)/tox run --skip-missing-interpreters true $(addprefix --discover ,$(PYENV)) -- $(or $(TESTS),-n 2 --dist loadfile)

# The wheel with the oldest release that setup.cfg allows of each dependency.
test-lowest:  ## the package in dist/ with the oldest dependencies that it allows
	$(PYTHON) scripts/packages.py lowest

$(VENV)/.tox: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet tox
	touch $@

# Whether the C++ loops compile for machines that are not here, by a compiler for all of them.
cross: $(VENV)/.installed  ## compile the C++ loops for the machines that are not here
	$(BIN)/python -m pip install --quiet ziglang
	mkdir -p build
	for target in x86_64-linux-gnu.2.27 aarch64-linux-gnu.2.27 aarch64-macos x86_64-windows-gnu; do \
		for file in $(LOOPS); do echo $$target $$file; \
			$(BIN)/python -m ziglang c++ -target $$target -std=c++17 -O1 -fno-exceptions -fno-rtti \
				-Wall -Wextra -Werror -c $$file -o build/cross.o || exit 1; \
		done; \
	done

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
	rm -rf $(VENV) build dist *.egg-info
