# Every target does its own set-up: `make demo` and `make test` work in a bare clone.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON_IN_VENV := .venv/bin/python
# The tests start hundreds of processes, each of which would compile all of this project by itself.
unexport PYTHONDONTWRITEBYTECODE
PROTOS := $(sort $(wildcard proto/tallystick/v1/*.proto))
# protoc's arguments but for the folder that the stubs go to.
PROTOC := $(PYTHON_IN_VENV) -m grpc_tools.protoc -I proto

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Servers from Debian's packages where missing, .venv, pinned dependencies
	@bash deploy/setup.sh
	@$(if $(filter $@,$(MAKECMDGOALS)),echo 'setup: ready. To have tallystick on the PATH: source .venv/bin/activate' >&2)

.PHONY: demo
demo: setup ## A 3-shard cluster, 50,000 payments, every money operation, audits: no money got lost
	@$(PYTHON_IN_VENV) -m deploy.demo

.PHONY: test
test: setup ## All tests, three at a time; ARGS="-k name" for some
	$(PYTHON_IN_VENV) -m pytest -n 3 --dist worksteal $(ARGS)

.PHONY: check
check: setup ## Lint, types, and tests without servers: under a minute
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m mypy
	$(PYTHON_IN_VENV) -m pytest -n 2 --dist worksteal -q -m "not servers and not large" $(ARGS)

.PHONY: engine
engine: setup ## Build the shard engine, the module that Redis loads
	@$(PYTHON_IN_VENV) -m shard_node.engine

.PHONY: engine-sanitized
engine-sanitized: setup ## The same with checks of memory and of undefined behaviour, for tests
	@$(PYTHON_IN_VENV) -m shard_node.engine --sanitized

.PHONY: search
search: setup ## The large searches of the commit protocol: every order of events, some minutes
	TALLYSTICK_SEARCH=1 $(PYTHON_IN_VENV) -m pytest -n 2 tests/coordinator/test_exhaustive_attempts.py $(ARGS)

.PHONY: lint
lint: setup ## ruff: rules and format
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .

.PHONY: format
format: setup ## Let ruff repair what it can
	$(PYTHON_IN_VENV) -m ruff check --fix .
	$(PYTHON_IN_VENV) -m ruff format .

.PHONY: types
types: setup ## mypy --strict
	$(PYTHON_IN_VENV) -m mypy

.PHONY: bench
bench: setup ## Transfers a second, and CPU microseconds a transfer for each process
	$(PYTHON_IN_VENV) -m bench $(ARGS)

.PHONY: locust
locust: setup ## Locust's web page against a local cluster; ARGS="--headless --target-rate 50000" and others
	@$(PYTHON_IN_VENV) -m bench.locust_rig $(ARGS)

.PHONY: proto
proto: setup ## Make the stubs anew from proto/tallystick/v1/*.proto
	$(PROTOC) --python_out=proto --pyi_out=proto --grpc_python_out=proto $(PROTOS)

.PHONY: check-proto
check-proto: setup ## Fail when the committed stubs differ from what `make proto` makes
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PROTOC) --python_out="$$fresh" --pyi_out="$$fresh" --grpc_python_out="$$fresh" $(PROTOS) && \
	diff -r -x '*.proto' -x __init__.py -x __pycache__ "$$fresh/tallystick/v1" proto/tallystick/v1 \
	|| { echo "The stubs are out of date: run 'make proto' and commit the result." >&2; exit 1; }

.PHONY: constraints
constraints: setup ## Pin the newest versions that pyproject.toml allows (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --extra dev \
		--no-emit-index-url --no-emit-find-links --no-emit-package tallystick-client --no-header \
		-o constraints.txt pyproject.toml

.PHONY: clean
clean: ## Remove what was built: .venv, caches
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
