# Two commands do everything on a machine with Python 3.11, git and make:
#   make demo    28,000 airports into the sandbox, followed and audited
#   make test    the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test torture bench check format lock clean

demo: $(VENV)/.ready
	$(BIN)/bulksubmit demo

# Two at once, for most of the fault tests' time is waiting: their output comes after that of the others.
test: $(VENV)/.ready
	@$(BIN)/pytest tests/torture > .torture.log 2>&1 & torture=$$!; \
	$(BIN)/pytest --ignore=tests/torture; rest=$$?; \
	wait $$torture; faults=$$?; cat .torture.log; rm -f .torture.log; test $$rest -eq 0 && test $$faults -eq 0

# The long form of the fault tests: the whole matrix, 200 kills, every write and sync of the ledger, every place that a
# batch in doubt can come to. For a night:
# make torture BULKSUBMIT_KILLS=2000
torture: $(VENV)/.ready
	BULKSUBMIT_TORTURE=1 BULKSUBMIT_KILLS=$(or $(BULKSUBMIT_KILLS),200) $(BIN)/pytest tests/torture tests/scenarios

# The measurements, and their page in benchmarks/results. BENCH="--quick" and BENCH="--only NAME" are handed on.
bench: $(VENV)/.ready
	sh benchmarks/install.sh $(PYTHON) .bench
	$(BIN)/python -m benchmarks $(BENCH)

check: $(VENV)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Made once, and again only when the lock or the project's metadata changes.
$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("bulksubmit needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Writes the lock anew from pyproject.toml: versions and hashes, no index and no host. Python 3.11, the oldest supported.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet pip-tools
	$(VENV)-lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --all-extras \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header --no-annotate \
		--output-file requirements.lock pyproject.toml
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) .bench .bulksubmit .pytest_cache .mypy_cache .ruff_cache .hypothesis
