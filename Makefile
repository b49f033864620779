# `make run` installs into .venv and starts everything. Needs Python 3.11 or newer.
#
#   make run                 install, then run everything until Ctrl-C (settings: environment, or make run WEBHOOK_URL=...)
#   make demo                the same with made-up events, no network needed
#   make test [ARGS=...]       all tests, or those that ARGS chooses (ARGS="-k retry")
#   make crash-test [ARGS=...] faults of every kind, and an account of every event; some minutes, PostgreSQL and Redis of its own
#   make lint / make format  what CI checks / the part of it that can mend itself
#   make schema              the OpenAPI document, docs/openapi.yaml, from the code
#   make lock                requirements.lock and requirements-dev.lock, with hashes, from the pins in requirements*.txt
#   make audit               known vulnerabilities in what the lock files install, from PyPI
#   make bench               stream -> stored -> delivered, events per second

PYTHON =
PYTHONS = $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)
ARGS =
VENV = .venv
BIN = $(VENV)/bin
RUNTIME = $(VENV)/.runtime-installed
DEV = $(VENV)/.dev-installed
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock'
# Checking migrations and describing the API start Django, which wants a key and a place for its files.
LINT_ENV = SECRET_KEY=lint JETRELAY_DATA_DIR=$(VENV)/lint-data

.PHONY: install run demo test crash-test lint format schema lock audit bench clean

install: $(RUNTIME)

run: $(RUNTIME)
	@$(BIN)/python manage.py up

demo: $(RUNTIME)
	@$(BIN)/python manage.py up --demo

test: $(DEV)
	$(BIN)/python -m pytest $(ARGS)

crash-test: $(DEV)
	$(BIN)/python -m tests.crash $(ARGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find templates -name '*.html' -exec $(BIN)/djade --target-version 5.2 --check {} +
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m mypy
	$(LINT_ENV) $(BIN)/python manage.py makemigrations --check --dry-run

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find templates -name '*.html' -exec $(BIN)/djade --target-version 5.2 {} +

schema: $(RUNTIME)
	$(LINT_ENV) $(BIN)/python manage.py spectacular --file docs/openapi.yaml --validate --fail-on-warn

# For every Python and system that requirements.txt names at once.
lock: $(DEV)
	$(LOCK) requirements.txt --output-file requirements.lock
	$(LOCK) requirements-dev.txt --output-file requirements-dev.lock

# Of all that is installed anywhere: the longer list holds the shorter one. Strict, because a package that could not be looked up is not one
# without vulnerabilities.
audit: $(DEV)
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements-dev.lock

bench: $(RUNTIME)
	$(BIN)/python manage.py bench pipeline

# Data stays: it is not ours to throw away.
clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first Python that is new enough. Built afresh when the pins change, so that nothing old stays behind; a link is replaced, and not
# what it leads to emptied.
$(RUNTIME): requirements.lock
	@found=; \
	for python in $(PYTHONS); do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "Jetrelay needs Python 3.11 or newer. Looked for: $(PYTHONS); $(firstword $(PYTHONS)) is: $$($(firstword $(PYTHONS)) -V 2>&1)" >&2; \
	    echo "Install one, or name it: make run PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	if ! $$found -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$found cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; \
	    exit 1; \
	fi; \
	echo "Installing into $(VENV) with $$($$found -V); once, for about a minute ..."; \
	rm -rf $(VENV) && $$found -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock
	@echo "Installing what tests and linters need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
