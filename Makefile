# `make run` needs Python 3.11 or newer and nothing else. `make check` is the whole gate.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RIVALS_INSTALLED := $(VENV)/.installed-bench
COMPILE = $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header

# The first Python that is new enough and can make virtual environments. A name on the PATH may be somebody else's
# shim that cannot be read, or a Debian python3 without python3-venv: it is tried, not trusted.
CANDIDATES = $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3 /usr/local/bin/python3
USABLE = import sys, ensurepip, ssl, venv; sys.exit(sys.version_info < (3, 11))

.PHONY: help
help: ## Say what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: run
run: $(INSTALLED) ## Start everything, from PostgreSQL to the APIs; Ctrl-C stops it
	@exec $(BIN)/muster run

.PHONY: demo
demo: $(INSTALLED) ## Tell the story of one user against the running stack
	@$(BIN)/muster demo

.PHONY: reset
reset: $(INSTALLED) ## Delete the development stack's data
	@$(BIN)/muster reset

.PHONY: test
test: $(INSTALLED) ## Run the whole suite (ARGS are pytest's)
	$(BIN)/pytest $(ARGS)

.PHONY: bench
bench: $(RIVALS_INSTALLED) ## Measure speed beside rivals; writes benchmarks/results.md (ARGS: names, --quick)
	$(BIN)/python benchmarks/all.py $(ARGS)

.PHONY: lint
lint: $(INSTALLED) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(INSTALLED) ## Check types, strictly, tests included
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

.PHONY: imports
imports: $(INSTALLED) ## Check that imports point down only
	PYTHONPATH=subscriber $(BIN)/lint-imports

.PHONY: schemas
schemas: $(INSTALLED) ## Write the events' JSON Schemas and the AsyncAPI document, if nobody is broken by them
	$(BIN)/python -m events.contract

.PHONY: contract
contract: $(INSTALLED) ## Check that they are what the types say, and that no published version is broken
	$(BIN)/python -m events.contract --check

.PHONY: check
check: lint types imports contract test ## Everything that must hold

.PHONY: lock
lock: $(INSTALLED) ## Resolve the dependencies anew and pin them by hash (ARGS are uv's: --upgrade)
	$(COMPILE) $(ARGS) --output-file requirements.lock pyproject.toml
	$(COMPILE) $(ARGS) --output-file requirements-dev.lock --extra dev pyproject.toml
	$(COMPILE) $(ARGS) --output-file requirements-bench.lock --extra bench --constraints requirements-dev.lock pyproject.toml

$(INSTALLED): requirements-dev.lock pyproject.toml
	@found=; for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c '$(USABLE)' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo 'Muster needs Python 3.11 or newer that can make virtual environments (on Debian and Ubuntu:' >&2; \
	    echo 'apt-get install python3-venv). Install one, or name yours: make PYTHON=/path/to/python3' >&2; \
	    exit 2; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    echo "making $(VENV) with $$found"; \
	    rm -rf $(VENV) && "$$found" -m venv $(VENV); \
	fi
	@echo 'installing what requirements-dev.lock pins'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(RIVALS_INSTALLED): $(INSTALLED) requirements-bench.lock
	@echo 'installing what requirements-bench.lock pins'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@
