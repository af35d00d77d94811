# Two commands do everything on a fresh machine: `make serve` and `make test`. Both make the environment first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CONFIG ?= deployments/configs/embedded.yaml
PORT   ?= 8000

.DEFAULT_GOAL := help
.PHONY: help serve test test-fast test-slow lint format lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

serve: $(VENV)/.serve  ## start Triptych on the embedded models and print the address (CONFIG=..., PORT=...)
	@exec $(BIN)/triptych serve --config $(CONFIG) --port $(PORT)

test: $(VENV)/.dev  ## every test that runs without a GPU, one Ray application included
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-fast: $(VENV)/.dev  ## unit tests only: seconds, no Ray
	$(BIN)/python -m pytest -m "not slow and not gpu and not ray"

test-slow: $(VENV)/.dev  ## the tests that take more than half a minute
	$(BIN)/python -m pytest -m "slow and not gpu"

lint: $(VENV)/.dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.dev  ## write constraints.txt from what is installed
	$(BIN)/pip freeze --exclude-editable --exclude triptych | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' > constraints.txt

clean:  ## remove the environment and what tests and builds leave behind
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# pip, since a torch wheel given through pip's own settings (a CPU build, a mirror) must be found.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Triptych needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.serve
