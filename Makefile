# `make demo` runs the main job with the shipped model; `make test` runs every check. Both create .venv when needed
# and need nothing but python3 (3.11 or later), make and a package index.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
# Tests run on all cores; PYTEST_ARGS="-m 'not slow'" is the quick round.
PYTEST_ARGS ?= -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs format wheel clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.installed ## install, then listen, speak and make sounds with the shipped model
	$(BIN)/uniaudio2 demo --out $(DEMO)

test: $(VENV)/.installed-test ## install, then lint, format, types, spelling and tests
	$(MAKE) lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-test ## lint, format, types and spelling only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/codespell

docs: $(VENV)/.installed-test ## the pages under docs/ as a site in build/site, strictly
	$(BIN)/python -m mkdocs build --strict --quiet

format: $(VENV)/.installed-test ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.installed ## build a wheel in dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info

# A stamp is older than pyproject.toml or constraints.txt exactly when the environment has to be brought up to date.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "uniaudio2 needs Python 3.11 or later; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[published,data,media,serve,eval,train,docs,dev]'
	@touch $@ $(VENV)/.installed
