# The verbs of this project. Each one prepares what it needs in .venv first, and again only when the
# lock or pyproject.toml has changed. A machine needs Python 3.11, make and git; with a C compiler deciding and simulating are faster.

PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
ZOO ?= .zoo
# What runs for each request is compiled where there is a C compiler, and again when it has changed (setup.py).
HOT := $(shell find $(addprefix src/slotwise/,policy facts engine pipelines sim workload) -name '*.py')
COMPILED := .venv/.compiled
PYTEST_ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup compiled interpreted zoo demo serve test check bench docs protocol lock clean

help: ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 16

setup: $(COMPILED) ## make .venv with everything that the other verbs use

$(READY): requirements.lock pyproject.toml
	@echo "setting up .venv (once per change of requirements.lock or pyproject.toml)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

compiled: $(COMPILED) ## compile the hot modules (the other verbs do, where there is a C compiler)

$(COMPILED): $(READY) setup.py $(HOT)
	@if command -v cc > /dev/null; then \
		echo "compiling the hot modules (once per change of them)"; \
		SLOTWISE_COMPILE=1 $(BIN)/python -W ignore setup.py --quiet build_ext --inplace --parallel 2 > .venv/compile.log 2>&1 \
			|| { cat .venv/compile.log; exit 1; }; \
		find src -name '*.so' -exec touch {} +; \
	else \
		echo "no C compiler here: everything runs interpreted, which is right but slower"; \
	fi
	@touch $@

interpreted: ## remove what was compiled, to debug or profile the sources as they are
	@find src -name '*.so' -delete
	@rm -f $(COMPILED)

zoo: $(COMPILED) ## build a folder of small models (ZOO=.zoo)
	@$(BIN)/slotwise zoo build $(ZOO)

demo: zoo ## see what Slotwise does: models, load, overload, and a picture
	@$(BIN)/slotwise demo --zoo $(ZOO)

serve: zoo ## serve the models of the zoo on this machine
	@$(BIN)/slotwise serve $(ZOO)

test: $(COMPILED) ## run the tests (PYTEST_ARGS="-m 'not slow' -k journal")
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(READY) ## style, format and types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@echo "check: style, format and types are sound"

bench: $(COMPILED) ## run every program in benchmarks/
	@for program in benchmarks/*.py; do echo "== $$program"; $(BIN)/python "$$program"; done

docs: $(COMPILED) ## check links, commands and file names in README and docs/, and the examples' output
	@$(BIN)/python -m pytest --quiet tests/repo/test_docs.py tests/repo/test_examples.py

protocol: $(READY) ## make the code of the gRPC protocol again from its .proto file
	@$(BIN)/python -m tests.repo.protocol

lock: $(READY) ## renew requirements.lock from pyproject.toml (without torch, openvino and ray)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --extra dev \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	@git --no-pager diff --stat -- requirements.lock

clean: ## remove everything that can be made again
	@find src -name '*.so' -delete
	@rm -rf .venv $(ZOO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
