# Every command of the project; `make` alone lists them.
#
# Needs Python 3.11, 3.12 or 3.13 and make (GNU make 3.81, the one of macOS, is
# enough). Everything else is installed into .venv by the first command that
# needs it, and again only when a file that lists packages has changed.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The first Python that TensorFlow has a wheel for. Another one: make PYTHON=/path/to/python3
SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The tools of this project before any others of the same name.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# `deploy` and the tests are no installed packages: Python finds them in this folder.
unexport PYTHONSAFEPATH

# --- Running it -------------------------------------------------------------

# `docker` or `local`; empty: what runs already, else Docker if there is an engine.
MODE ?=
# How many workers; empty: as many as before, at least one.
WORKERS ?=
# `server`, `worker-1`, ...; empty: all.
SERVICE ?=
IMAGE ?= docs/examples/coffee.jpg
MODEL ?=
# 1: install LiteRT and OpenVINO, too, and let each worker choose the fastest engine.
ENGINES ?=

export DESPACHO_MODE := $(MODE)
ifneq ($(ENGINES),)
export ENGINES
export WORKER_ENGINE ?= auto
endif
RUN = $(BIN)/python -m deploy

.PHONY: help up up-local up-docker down status logs scale predict worker
help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-18s%s\n", $$1, $$2 }' Makefile

up: $(BIN)/python  ## start everything and wait for a real prediction [MODE=local|docker] [WORKERS=n] [ENGINES=1] [TRACING=1]
	@mode=$$($(RUN) mode) && $(MAKE) up-$$mode WORKERS=$(WORKERS)

# With Docker the images bring the services; only the client is needed here.
up-docker: $(VENV)/.installed-client
	@$(RUN) up --mode docker $(if $(WORKERS),--workers $(WORKERS))

up-local: $(VENV)/.installed-run $(if $(ENGINES),$(VENV)/.installed-engines) $(if $(TRACING),$(VENV)/.installed-tracing)
	@$(RUN) up --mode local $(if $(WORKERS),--workers $(WORKERS))

down: $(VENV)/.installed-client  ## stop everything; what waits in Redis stays on disk
	@$(RUN) down

status: $(VENV)/.installed-client  ## show processes, addresses and health
	@$(RUN) status

logs: $(VENV)/.installed-client  ## follow the logs [SERVICE=worker-1]
	@$(RUN) logs $(SERVICE)

scale: $(VENV)/.installed-client  ## run WORKERS=n workers; the others are not touched
	@$(RUN) scale "$(WORKERS)"

worker: $(VENV)/.installed-client  ## run one more worker, of your own model [MODEL=directory]
	@$(RUN) worker "$(MODEL)"

predict: $(VENV)/.installed-client  ## label an image [IMAGE=photo.jpg]
	@$(RUN) predict "$(IMAGE)"

# --- Working on it ----------------------------------------------------------

# How many tests run at a time.
TEST_PROCESSES ?= 3
# A row of the chaos suite (`make chaos CHAOS=--list`); empty: all.
ROW ?=
# A promise to break on purpose, so that the suite has to fail.
BREAK ?=
# Scenarios of the benchmark (`make bench BENCH=--list`); empty: all but the long ones.
BENCH ?=
ROUNDS ?= 5

.PHONY: install install-engines install-tracing test test-unit test-redis-matrix chaos bench check lint format audit types proto proto-check wheel docs constraints clean
install: $(VENV)/.installed-dev  ## make .venv with everything: services, tests, checks

install-tracing: $(VENV)/.installed-tracing  ## also install OpenTelemetry, for services with OTEL_EXPORTER_OTLP_ENDPOINT

install-engines: $(VENV)/.installed-engines  ## also install LiteRT and OpenVINO, for workers with WORKER_ENGINE=auto

# Most tests wait for processes, so several at a time save time; those of a file share what
# they started, and stay together. In the order of their folders: the few that take longest would
# come last by number.
test: $(VENV)/.installed-dev  ## all tests, with real Redis, workers and model [TESTS="-k reclaim"]
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(TESTS)

test-unit: $(VENV)/.installed-dev  ## the tests that take seconds and need nothing
	$(BIN)/pytest tests/unit $(TESTS)

# The binaries of two of them are installed into .venv-matrix.
test-redis-matrix: $(VENV)/.installed-dev  ## the tests of dispatch on Redis 7.0 and 8.2, Valkey 8.1 and 9.1
	$(BIN)/python -m tests.redis_matrix

chaos: $(VENV)/.installed-dev  ## kill, stall and flood the real system, and count [ROW=name] [BREAK=ack-first]
	$(BIN)/python -m tests.chaos $(ROW) $(if $(BREAK),--break $(BREAK)) $(CHAOS)

# Takes about 20 minutes; with nothing else to do for the machine.
bench: $(VENV)/.installed-dev  ## measure the real system beside its limits, for docs/benchmarks.md [BENCH="relay stream"] [ROUNDS=5]
	$(BIN)/python -m tests.bench $(BENCH) --rounds $(ROUNDS) --markdown

# What to run before each push. `.ci/run` runs `lint` and `test` instead, since
# `test` has the unit tests already.
check: lint test-unit  ## lint and unit tests; for before each push

# How long, and which examples; empty: others each time.
FUZZ_SECONDS ?= 600
SEED ?=

.PHONY: fuzz
fuzz: $(VENV)/.installed-dev  ## attack the real system with bad images, messages and frames [FUZZ_SECONDS=600] [SEED=n]
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(if $(SEED),--seed $(SEED)) $(FUZZ)

lint: $(VENV)/.installed-dev types proto-check  ## format, ruff, mypy, contracts, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m deploy.pages --check

# Apart from `check`: what is known changes without a change of ours.
audit: $(BIN)/python  ## known vulnerabilities of the pinned packages; says so if it cannot look
	@$(BIN)/python deploy/audit.py

types: $(VENV)/.installed-dev  ## mypy --strict
	$(BIN)/mypy .

format: $(VENV)/.installed-dev  ## format, and repair what ruff can repair
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

proto: $(VENV)/.installed-dev  ## write the stubs in protos/gen
	$(BIN)/python protos/generate.py

# generate.py also lays out the files that ours import; buf needs them.
proto-check: $(VENV)/.installed-dev  ## stubs fresh, contracts well-formed, nothing broken for callers
	$(BIN)/python protos/generate.py --check
	$(BIN)/buf lint
	$(BIN)/python protos/breaking.py

# The first time, its compiler of stubs is fetched into .venv-clients.
wheel: $(VENV)/.installed-dev  ## build the client for others, dist/despacho_client-*.whl
	$(BIN)/python deploy/wheel.py

docs: $(VENV)/.installed-dev  ## write the tables of settings, errors and metrics in docs/
	$(BIN)/python -m deploy.pages --write

constraints: $(VENV)/.installed-dev  ## write constraints.txt: the newest versions that fit together
	$(BIN)/python deploy/constraints.py

clean:  ## remove .venv, .venv-audit, .venv-matrix, .venv-clients, .venv-peers and caches; keeps .despacho, with what waits in Redis
	@if [ -x $(BIN)/python ] && $(BIN)/python -m deploy.local.running; then \
		echo "It is running: make down first." >&2; exit 1; fi
	rm -rf $(VENV) .venv-audit .venv-matrix .venv-clients .venv-peers build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- Installing -------------------------------------------------------------

# Its programs and packages have the path of the place where it was made: in a checkout that was
# moved they lead nowhere, and in a copy to the code of the other one.
MADE_AT := $(shell sed -n 's|^command = .* -m venv /|/|p' $(VENV)/pyvenv.cfg 2>/dev/null)
FOUND_AT := $(shell CDPATH= cd $(VENV) 2>/dev/null && pwd -P)
ifneq ($(MADE_AT),)
ifneq ($(MADE_AT),$(FOUND_AT))
.PHONY: elsewhere
elsewhere:
	@echo "$(VENV) was made at another place; making it anew"
	@rm -rf $(VENV)
$(BIN)/python $(addprefix $(VENV)/.installed-,client run engines tracing dev): elsewhere
endif
endif

$(BIN)/python:
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(SUPPORTED)'; then \
		echo "Python 3.11, 3.12 or 3.13 is needed; found: $$("$(or $(PYTHON),python3)" -V 2>&1)." >&2; \
		echo "Install one, or say where it is: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; \
		exit 1; fi
	@echo "Making $(VENV) with $$("$(PYTHON)" -V)"
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# $(call installed,requirement file): install that, then this checkout itself.
define installed
	@echo "Installing $(1); the first time this can take some minutes"
	@$(PIP) install --quiet -r $(1)
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
endef

CLIENT_FILES := requirements-client.txt client/requirements.txt constraints.txt pyproject.toml
RUN_FILES := $(CLIENT_FILES) requirements-local.txt server/requirements.txt worker/requirements.txt \
	gateway/requirements.txt
ENGINE_FILES := requirements-engines.txt constraints.txt
TRACING_FILES := requirements-tracing.txt constraints.txt
DEV_FILES := $(RUN_FILES) $(ENGINE_FILES) $(TRACING_FILES) requirements.txt requirements-dev.txt

$(VENV)/.installed-client: $(CLIENT_FILES) | $(BIN)/python
	$(call installed,requirements-client.txt)

$(VENV)/.installed-run: $(RUN_FILES) | $(VENV)/.installed-client
	$(call installed,requirements-local.txt)

$(VENV)/.installed-engines: $(ENGINE_FILES) | $(VENV)/.installed-run
	$(call installed,requirements-engines.txt)

$(VENV)/.installed-tracing: $(TRACING_FILES) | $(VENV)/.installed-run
	$(call installed,requirements-tracing.txt)

$(VENV)/.installed-dev: $(DEV_FILES) | $(VENV)/.installed-run
	$(call installed,requirements-dev.txt)
