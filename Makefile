# All that there is to do here; `make` alone lists it. Each target installs what it needs, from PyPI, into .venv (or
# VENV=...), with the first python of 3.11 or later that is found (or PYTHON=...). A C compiler is needed.

VENV ?= .venv
PYTHON ?=
GCC ?= gcc
PYTEST_ARGS ?=

PYTHONS = $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)
BIN = $(VENV)/bin
SOURCES = pyproject.toml setup.py ffi/_build.py $(wildcard ffi/csrc/*.[ch])
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo docs test test-dask test-pandas test-pandas22 test-moosefs test-pytensor test-ray test-tipc fuzz lint typecheck bench sanitize build clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.installed-demo ## see it work: this machine's file system, from every core; then two short ones
	$(BIN)/python examples/filesystem.py
	$(BIN)/python examples/shared_pandas.py
	$(BIN)/python examples/locks.py

test: $(VENV)/.installed-test ## the quick tests, on all cores
	$(BIN)/pytest -n auto -m "not crash and not system and not tipc and not moosefs and not ray" $(PYTEST_ARGS)

test-pandas: $(VENV)/.installed-pandas-tests ## pandas' own tests with SDataFrame for DataFrame (ten minutes)
	$(BIN)/python tests/pandas_suite/run.py

DISTRIBUTED ?= ../distributed

test-dask: ## Dask's own tests over the adapter, in .venv-dask; DISTRIBUTED=... is a git clone (ten minutes)
	@test -d $(DISTRIBUTED)/distributed || { echo "no clone of dask.distributed in $(DISTRIBUTED): make test-dask DISTRIBUTED=..." >&2; exit 1; }
	@$(MAKE) --no-print-directory VENV=.venv-dask .venv-dask/.installed-dask-tests
	.venv-dask/bin/python tests/dask_suite/run.py $(DISTRIBUTED)

test-tipc: $(VENV)/.installed-test ## the tests of TIPC, in a kernel that has it
	tests/tipc/guest.sh $(BIN)/pytest -m tipc $(PYTEST_ARGS)

test-moosefs: $(VENV)/.installed-test ## the tests of stores on a MooseFS of their own (root and Debian's packages)
	tests/moosefs/cell.sh $(BIN)/pytest $(PYTEST_ARGS) tests/test_stores.py tests/moosefs -k moosefs

FRAME_TESTS ?= $(wildcard tests/test_layout_*.py tests/test_sdataframe*.py tests/test_sseries.py tests/test_generations*.py \
    tests/test_frame_keeper.py tests/test_parallel.py tests/test_filling*.py)

test-pandas22: ## our own tests of frames with pandas 2.2, in .venv-pandas22
	@$(MAKE) --no-print-directory VENV=.venv-pandas22 .venv-pandas22/.installed-pandas22
	.venv-pandas22/bin/pytest -n auto -m "not crash and not system" $(PYTEST_ARGS) $(FRAME_TESTS)

test-pytensor: ## functions of PyTensor, in .venv-pytensor: it wants an older numba
	@$(MAKE) --no-print-directory VENV=.venv-pytensor .venv-pytensor/.installed-pytensor
	.venv-pytensor/bin/pytest $(PYTEST_ARGS) tests/test_expressions_pytensor.py tests/test_code_shipping.py -k pytensor

test-ray: $(VENV)/.installed-ray ## the adapter for Ray, in a cluster of its own
	$(BIN)/pytest -m ray $(PYTEST_ARGS) tests/test_adapters_ray.py tests/test_adapters_ray_nodes.py

fuzz: $(VENV)/.installed-test ## a million damaged inputs for every parser of the wire, 100,000 of code (some minutes)
	$(BIN)/python tests/fuzz_code.py
	$(BIN)/python tests/fuzz_ingest.py

lint: $(VENV)/.installed-dev ## ruff: rules and form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Type checkers run no import hooks, which an editable install is: they get one tree that looks like the wheel.
typecheck: $(VENV)/.installed-dev ## mypy, strict, over the tree as it will be installed
	rm -rf build/typing
	mkdir -p build/typing/numpush
	ln -s $(abspath $(filter-out %/__pycache__,$(wildcard numpush/*)) shm ffi) build/typing/numpush/
	$(BIN)/mypy

docs: $(VENV)/.installed-docs ## the site, in build/site: warnings and broken references are errors
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet --doctree-dir build/doctrees docs build/site

bench: $(VENV)/.installed-bench ## measure each claim against its peers (long)
	$(BIN)/python benchmarks/run.py

# The C layer alone, with a C program that calls every function of it.
C_FLAGS = -std=c11 -D_GNU_SOURCE -g -O1 -Iffi/csrc -Wall -Wextra -Wshadow -Wconversion -Werror
C_FILES = $(wildcard ffi/csrc/*.c tests/c/*.c)
C_LIBS = -lrt -lpthread -lm

sanitize: ## the C tests under gcc's sanitizers, warnings being errors; and with clang where there is one
	@mkdir -p build/c
	$(GCC) $(C_FLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all $(C_FILES) -o build/c/asan $(C_LIBS)
	build/c/asan
	@if echo 'int main(void) { return 0; }' | $(GCC) -fsanitize=thread -x c - -o build/c/probe; then \
	    $(MAKE) --no-print-directory build/c/tsan.passed; \
	else echo "$(GCC) has no ThreadSanitizer: not run"; fi
	@if command -v clang >/dev/null; then \
	    set -x; clang $(C_FLAGS) $(C_FILES) -o build/c/clang $(C_LIBS) && build/c/clang; \
	else echo "no clang: not built with it"; fi

# It wants its shadow at fixed addresses: without address randomization where it can be switched off.
.PHONY: build/c/tsan.passed
build/c/tsan.passed:
	$(GCC) $(C_FLAGS) -fsanitize=thread $(C_FILES) -o build/c/tsan $(C_LIBS)
	TSAN_OPTIONS="report_mutex_bugs=0 halt_on_error=1" $$(setarch -R true 2>/dev/null && echo setarch -R) build/c/tsan

build: $(VENV)/.installed ## a wheel, in dist/
	rm -rf build/lib* build/bdist* # setuptools would pack what once was there
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove what was built, and .venv
	rm -rf build dist .venv .venv-* *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f ffi/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@found=; for python in $(PYTHONS); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	test -n "$$found" || { \
	    echo "numpush needs Python 3.11 or later; tried: $(PYTHONS). Say which: make PYTHON=/path/to/python" >&2; exit 1; }; \
	echo "making $(VENV) with $$("$$found" --version) ($$found)"; \
	"$$found" -m venv --clear $(VENV) || { \
	    rm -rf $(VENV); echo "no venv: on Debian and Ubuntu, apt install python3-venv python3-dev" >&2; exit 1; }

$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e .
	@touch $@

# Text columns are shared as Arrow keeps them; without pyarrow each process would make strings of them.
$(VENV)/.installed-demo: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e '.[arrow]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-test: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e '.[test]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-demo

$(VENV)/.installed-pandas22: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e '.[test]' 'pandas>=2.2,<2.3' 'numpy<2.3' 'python-dateutil<3'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-demo $(VENV)/.installed-test

$(VENV)/.installed-pytensor: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e '.[test]' 'pytensor>=2.30'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-demo $(VENV)/.installed-test

$(VENV)/.installed-ray: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e '.[test,ray]' 'ray[client]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-demo $(VENV)/.installed-test

# What pandas' own tests skip without.
$(VENV)/.installed-pandas-tests: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e '.[test,pandas-tests]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-demo $(VENV)/.installed-test

# Of the version of the clone, with its tests: a wheel has none. What they skip without, too.
$(VENV)/.installed-dask-tests: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e '.[test,dask-tests]' -e $(DISTRIBUTED)
	@touch $@ $(VENV)/.installed $(VENV)/.installed-demo $(VENV)/.installed-test

$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e '.[test,dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-demo $(VENV)/.installed-test

$(VENV)/.installed-docs: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e '.[docs]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e '.[bench]'
	@touch $@ $(VENV)/.installed
