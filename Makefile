# Two commands do everything on a fresh machine: `make serve` and `make test`. Both make the environment first, which takes
# minutes once: about 6 GB of disk with the torch that PyPI has for Linux.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CONFIG ?= deployments/configs/embedded.yaml
PORT   ?= 8000
SAY    := echo "Installing into $(VENV), once: some 150 packages, 2 to 6 GB of disk with torch; this takes minutes."

.DEFAULT_GOAL := help
MUTANTS ?=
JOBS ?= 2
.PHONY: help serve page test test-fast test-slow mutants docs lint format lock clean

help:  ## this list
	@echo "Triptych: make serve, then the first command of the README. What there is:"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/; s/^/  /' | expand -t 16
	@echo "Set PYTHON=python3.12 for another Python, CONFIG=FILE and PORT=NUMBER for make serve."

serve: $(VENV)/.serve  ## start Triptych on the embedded models and print the address; Ctrl-C stops all of it
	@exec $(BIN)/triptych serve --config $(CONFIG) --port $(PORT)

# The Ray application mostly waits for processes that start and end, so its tests run beside all others and are told of last.
test: $(VENV)/.dev  ## every test that runs without a GPU, one Ray application included
	@ray=$$(mktemp); \
	$(BIN)/python -m pytest -m "ray and not slow and not gpu" >"$$ray" 2>&1 & beside=$$!; \
	trap 'kill $$beside 2>/dev/null; wait $$beside; cat "$$ray"; rm -f "$$ray"; exit 130' INT TERM; \
	$(BIN)/python -m pytest -m "not slow and not gpu and not ray" -n $(JOBS) --dist loadfile --no-loadscope-reorder; own=$$?; \
	wait $$beside; other=$$?; cat "$$ray"; rm -f "$$ray"; \
	exit $$((own ? own : other))

test-fast: $(VENV)/.dev  ## the tests that need no Ray: most of the minutes of make test
	$(BIN)/python -m pytest -m "not slow and not gpu and not ray"

test-slow: $(VENV)/.dev  ## the tests that take more than half a minute
	$(BIN)/python -m pytest -m "slow and not gpu"

mutants: $(VENV)/.dev  ## put mistakes into the code and see whether the tests notice (an hour or two; MUTANTS="--sample 300": minutes)
	@nice $(BIN)/python -m tools.mutants $(MUTANTS)

docs: $(VENV)/.dev  ## the documents as a site in site/; a link that leads nowhere fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict  # the variable: no advertisement of its makers' next product
	@echo "To look at it: $(BIN)/python -m http.server --directory site --bind 127.0.0.1 8080"

page:  ## build the page anew from web/; needs Node 20.19 or newer, which a server does not
	cd web && npm ci --no-audit --no-fund && npm run build

lint: $(VENV)/.dev  ## ruff, mypy and codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(VENV)/.dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.dev  ## write constraints.txt from what is installed
	$(BIN)/pip freeze --exclude-editable --exclude triptych | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' > constraints.txt

clean:  ## remove the environment and what tests and builds leave behind
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# pip, since a torch wheel given through pip's own settings (a CPU build, a mirror) must be found.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Triptych needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(SAY)
	@$(BIN)/python tools/install.py -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(SAY)
	@$(BIN)/python tools/install.py -c constraints.txt -e '.[dev]'
	@$(BIN)/pip install --quiet --no-deps -c constraints.txt rapidocr-onnxruntime  # it asks for an OpenCV that does not go beside ours
	@touch $@ $(VENV)/.serve
