# Everything starts here. `make demo` and `make test` set up what they need on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CMAKE ?= cmake

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench native clean

help:  ## Show the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml CMakeLists.txt $(wildcard native/CMakeLists.txt native/*.cpp native/*.h)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed  ## Tokenize the sample data, print a table, decode one item of each modality
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed lint  ## Lint, types and the fast tests
	$(BIN)/python -m pytest

test-all: $(VENV)/.installed lint  ## Everything, slow tests included
	$(BIN)/python -m pytest -m 'not gpu'

lint: $(VENV)/.installed  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed  ## Measure what the README states
	$(BIN)/python -m pip install --quiet -e '.[bench,eval]'
	$(BIN)/python benchmarks/run.py

native:  ## Rebuild the native codebook search of this repository; quick after an edit
	$(CMAKE) -S native -B build/native
	$(CMAKE) --build build/native --parallel $$(nproc)

clean:  ## Remove what the targets above made
	rm -rf $(VENV) build demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
