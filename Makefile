# Everything one does with this repository. `make` alone prints this list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
PACKAGES := packages/agentflow packages/agentflow-server
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup oidc demo check test test-all test-chaos chaos test-security bench format sync docs lock wheels clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## an environment in .venv with exactly what is locked

$(STAMP): requirements.lock $(addsuffix /pyproject.toml,$(PACKAGES))
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "AgentFlow needs Python 3.11 or newer; name one with PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(addprefix --editable ,$(PACKAGES))
	@touch $(STAMP)

OIDC := tests/oidc/node_modules/.stamp
oidc: $(OIDC) ## the OpenID Connect provider that tests sign in at (needs Node.js and npm)

$(OIDC): tests/oidc/package.json tests/oidc/package-lock.json
	cd tests/oidc && npm ci --no-audit --no-fund --loglevel=error
	@touch $(OIDC)

demo: setup ## start a backend, run an agent through the SDK, print the answer
	$(BIN)/python tools/demo.py

check: setup ## format, lint, types, import contracts, fast tests: before every commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/sync_generator.py --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright
	$(BIN)/python -m pytest -m "not slow and not long"

test: setup oidc ## everything CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/sync_generator.py --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright
	$(BIN)/python -m pytest -m "not long" --database both

test-all: setup oidc ## the long tests too
	$(BIN)/python -m pytest --database both

test-chaos: setup ## kill, pause and cut, one process and many; check that nothing is lost
	$(BIN)/python -m pytest tests/crash -m "not long"

chaos: setup ## the same for longer, with more seeds
	$(BIN)/python -m pytest tests/crash -s

test-security: setup oidc ## what must be refused, and signing in at a real provider
	$(BIN)/python -m pytest tests/security tests/oidc

bench: setup ## measure the SDK and the server; see benchmarks/README.md
	$(BIN)/python benchmarks/run.py

format: setup ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python tools/sync_generator.py

sync: setup ## make the synchronous resources from the asynchronous ones
	$(BIN)/python tools/sync_generator.py

docs: setup ## write the generated pages: OpenAPI and the command's help
	$(BIN)/python tools/reference.py

lock: setup ## resolve the dependencies anew, with hashes
	$(BIN)/python -m pip install --quiet "uv>=0.9"
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	  --no-emit-package agentflow --no-emit-package agentflow-server --group dev pyproject.toml -o requirements.lock

wheels: setup ## build both wheels into dist/
	$(BIN)/python -m build --quiet --wheel --no-isolation --outdir dist packages/agentflow
	$(BIN)/python -m build --quiet --wheel --no-isolation --outdir dist packages/agentflow-server

clean: ## remove the environment and what was built
	rm -rf $(VENV) dist build
