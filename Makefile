# make run    the whole system on this machine, until Ctrl-C (make run ARGS=--once ends after the summary)
# make run ODOO=real   the same with a real Odoo, started by the program that CRMHUB_REAL_ODOO names
# make test   every test (make test ARGS="-k demo")          make lint   style, types, imports, infra/
# make simulate SEED=7   the whole hub under a seeded scheduler, as a history to read (ARGS="--verbose --steps 60")
# make simulate-two-way SEED=7   sync in both directions, the same way (ARGS="--seeds 1-5000": many, only what is wrong is told;
#                                "--unmarked": systems that can't tell what a create has made)
# make soak   a load whose host is killed ten times ends as one that nobody disturbs (RECORDS=20000 KILLS=10 SEED=1);
#             then a flood of webhooks while host and storage restart (WEBHOOKS=20000 SENDERS=50), and sync in both directions
#             by many seeds and many examples (SEEDS=1-5000 EXAMPLES=5000)
# make demo-crash   kills the hub in front of you while it links two systems, and prints what came of each contact
# make new-connector NAME=x   the skeleton of a connector, and contract tests that are red (docs/adding-a-connector.md)
# make docs   docs/support-matrix.md from what the connectors declare
# make bench  what a first load costs, against a store that answers at once and against Azurite (ARGS="--records 10000")
# make install, make sandbox (a Dataverse server alone), make clean (what was installed; .data stays)

PYTHON ?= python3
WORKERS ?= 2
SEED ?= 1
RECORDS ?= 20000
KILLS ?= 10
SEEDS ?= 1-5000
EXAMPLES ?= 5000
WEBHOOKS ?= 20000
SENDERS ?= 50
ODOO ?= sandbox
VENV := .venv
BIN := $(VENV)/bin
# Each written only when its install is complete; npm writes the second one itself.
PACKAGES := $(VENV)/.installed
AZURITE := node_modules/.package-lock.json

.PHONY: run test lint docs new-connector simulate simulate-two-way soak demo-crash bench install sandbox clean
.DEFAULT_GOAL := run
.DELETE_ON_ERROR:

# exec: a signal to make's child is a signal to the program.
run: install
	@exec $(BIN)/python -m demo --odoo $(ODOO) $(ARGS)

test: install
	@exec $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

lint: install
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	@.ci/lint_infra

docs: install
	@$(BIN)/python .ci/support_matrix.py

# Needs nothing installed, and overwrites nothing.
new-connector:
	@"$(PYTHON)" .ci/new_connector.py "$(NAME)"

# What it prints depends on the seed alone.
simulate: install
	@exec $(BIN)/python -m simulation --seed $(SEED) $(ARGS)

simulate-two-way: install
	@exec $(BIN)/python -m simulation.two_way --seed $(SEED) $(ARGS)

soak: install
	@$(BIN)/python -m soak --records $(RECORDS) --kills $(KILLS) --seed $(SEED) $(ARGS)
	@CRMHUB_FLOOD_WEBHOOKS=$(WEBHOOKS) CRMHUB_FLOOD_SENDERS=$(SENDERS) \
	  $(BIN)/python -m pytest -q -n 0 tests/app/test_app_webhook_flood.py
	@$(BIN)/python -m simulation.two_way --seeds $(SEEDS) --processes $(WORKERS)
	@$(BIN)/python -m simulation.two_way --seeds $(SEEDS) --processes $(WORKERS) --unmarked
	@exec $(BIN)/python -m simulation.two_way.machine --examples $(EXAMPLES)

demo-crash: install
	@exec $(BIN)/python -m soak.crash --seed $(SEED) $(ARGS)

bench: install
	@exec $(BIN)/python -m benchmarks $(ARGS)

sandbox: install
	@exec $(BIN)/python -m sandbox dynamics365 --port 8950 --tls-port 8951 --records 100 --ca .data/sandbox-ca.pem $(ARGS)

install: $(PACKAGES) $(AZURITE)

$(PACKAGES): requirements.txt requirements-cli.txt requirements-dev.txt requirements-alone.txt
	@command -v "$(PYTHON)" >/dev/null || \
	  { echo "Python is missing: install 3.11, 3.12 or 3.13, or name one (make PYTHON=python3.12)." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is $$("$(PYTHON)" -V 2>&1), but 3.11, 3.12 or 3.13 is needed: name one (make PYTHON=python3.12)." >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: install it (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@echo "Installing the Python packages into $(VENV) ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
# The file says why these come without what they ask for.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python \
	  -r requirements-alone.txt
	@touch $@

$(AZURITE): package.json package-lock.json
	@command -v node >/dev/null && command -v npm >/dev/null || \
	  { echo "Node.js with npm is missing, which Azurite needs: install version 20 or newer (nodejs.org)." >&2; exit 1; }
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || \
	  { echo "Node.js $$(node --version) is too old for Azurite: install version 20 or newer (nodejs.org)." >&2; exit 1; }
	@echo "Installing Azurite into node_modules ..."
	@npm ci --no-audit --no-fund --loglevel=error
	@touch $@

clean:
	rm -rf $(VENV) .venv-3.13 node_modules .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
