# The targets work on a machine that has Python 3.11 or later and nothing else; but browser, screenshots
# and vendor need npm as well, and lock needs uv.
VENV   := .venv
READY  := $(VENV)/.ready
PYTHON ?= python3
ARGS   ?=
BENCH  ?=

NPM      := tests/browser
UPLOT    := $(NPM)/node_modules/uplot
VENDORED := ray_tracking/http/dashboard/static/vendor

.PHONY: run test test-fast check fix bench chaos cluster browser screenshots vendor lock clean

run: $(READY)          ## Everything on this machine, until Ctrl-C. ARGS="--port 9000"
	@exec $(VENV)/bin/ray-tracking run $(ARGS)

test: check            ## All tests
	$(VENV)/bin/python -m pytest tests/unit -n 2 -q
	$(VENV)/bin/python -m pytest tests/integration tests/e2e tests/browser $(ARGS)

test-fast: check       ## What every commit passes: under a minute
	$(VENV)/bin/python -m pytest tests/unit -n 2 -q $(ARGS)

check: $(READY)        ## Format, lint, types, layers
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

fix: $(READY)          ## Repair what can be repaired by itself
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(READY)        ## Figures beside their ceilings. BENCH=single for one
	$(VENV)/bin/python -m benchmarks $(BENCH) $(ARGS)

chaos: $(READY)        ## Kill everything, again and again. CHAOS_SECONDS=600 CHAOS_SEED=1
	$(VENV)/bin/python -m tests.chaos

cluster: $(READY)      ## Two nodes on this machine, one of which is lost: a minute
	$(VENV)/bin/python -m pytest tests/cluster -s $(ARGS)

browser: $(READY)      ## What the tests of the page need beside a Chromium; without it they are skipped
	$(VENV)/bin/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements-browser.lock
	npm ci --silent --prefix $(NPM)

screenshots: browser   ## The page in all its states, of a service that it starts, into build/screenshots
	$(VENV)/bin/python -m tests.browser.screenshots $(ARGS)

vendor:                ## Renew what the page has from npm, at the version in tests/browser/package.json
	npm ci --silent --prefix $(NPM)
	cp $(UPLOT)/dist/uPlot.esm.js $(UPLOT)/dist/uPlot.min.css $(VENDORED)
	cp $(UPLOT)/LICENSE $(VENDORED)/uPlot.LICENSE

lock:                  ## Renew the lock files; needs uv
	uv lock --upgrade
	uv export --frozen --only-group browser --no-annotate --no-header -q -o requirements-browser.lock
	uv export --frozen --no-emit-project --group dev --no-annotate --no-header -q -o requirements.lock

clean:                 ## The environment and all caches; never the data
	rm -rf $(VENV) $(NPM)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@
