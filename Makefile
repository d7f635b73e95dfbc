# The verbs of this project. Each one prepares what it needs in .venv first, and again only when the
# lock or pyproject.toml has changed. A machine needs Python 3.11, make, git and a C compiler.

PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
ZOO ?= .zoo
PYTEST_ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup zoo demo serve test check bench docs lock clean

help: ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 16

setup: $(READY) ## make .venv with everything that the other verbs use

$(READY): requirements.lock pyproject.toml
	@echo "setting up .venv (once per change of requirements.lock or pyproject.toml)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

zoo: $(READY) ## build a folder of small models (ZOO=.zoo)
	@$(BIN)/slotwise zoo build $(ZOO)

demo: zoo ## see what Slotwise does: models, load, overload, and a picture
	@$(BIN)/slotwise demo --zoo $(ZOO)

serve: zoo ## serve the models of the zoo on this machine
	@$(BIN)/slotwise serve $(ZOO)

test: $(READY) ## run the tests (PYTEST_ARGS="-m 'not slow' -k journal")
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(READY) ## style, format and types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@echo "check: style, format and types are sound"

bench: $(READY) ## run every program in benchmarks/
	@for program in benchmarks/*.py; do echo "== $$program"; $(BIN)/python "$$program"; done

docs: $(READY) ## check links, commands and file names in README and docs/, and the examples' output
	@$(BIN)/python -m pytest --quiet tests/repo/test_docs.py tests/repo/test_examples.py

lock: $(READY) ## renew requirements.lock from pyproject.toml (without torch, openvino and ray)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --extra dev \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	@git --no-pager diff --stat -- requirements.lock

clean: ## remove everything that can be made again
	@rm -rf .venv $(ZOO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
