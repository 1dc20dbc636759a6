# Every habit of this project, one word each. `make` lists them.
# All tools come from requirements/dev.txt; a machine needs Python 3.11, git, make and Node 20.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTEST := python -m pytest
WORKERS ?= 2
SEED ?= 1
SECONDS_OF_STORM ?= 60
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --quiet

.PHONY: help
help: ## lists the targets
	@sed -n -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 28

.PHONY: venv
venv: ## makes .venv, or does nothing
	@.ci/venv .venv 3.11

.PHONY: demo
demo: venv ## shows ATT at work: an app, its log, and a server that is killed
	@att demo

.PHONY: demo-nat
demo-nat: venv ## shows a real NAT server under ATT; installs NAT into .cache the first time
	@python -m tests.nat.demo --cache .cache/demo-nat

.PHONY: check
check: venv node ## runs every gate, as CI does
	@step() { printf '\n== %s\n' "$$*"; "$$@"; }
	step buf lint
	step buf format --diff --exit-code
	step .ci/breaking
	step python protos/generate.py --check
	step ruff format --check .
	step ruff check .
	step mypy
	step lint-imports
	step $(PYTEST) -n $(WORKERS) --cov --cov-report=term:skip-covered
	verdict="Python 3.13 NOT FOUND"
	if .ci/python 3.13 > /dev/null; then
		.ci/venv .venv-3.13 3.13
		export PATH="$(CURDIR)/.venv-3.13/bin:$$PATH"
		# Whole processes, started and killed, take most of the time; what they are made
		# of is tested on both.
		step $(PYTEST) -n $(WORKERS) $(addprefix --ignore=tests/,cli compat e2e examples faults storm)
		verdict="Python 3.13 TESTED"
	fi
	echo "Python 3.11 TESTED, $$verdict"

.PHONY: check-generated
check-generated: venv ## says whether the generated code is current
	@python protos/generate.py --check

.PHONY: check-faults-long
check-faults-long: venv ## runs the fault tests with 100 kills each instead of 10
	@$(PYTEST) tests/faults --kills 100 --timeout 1800

.PHONY: storm-runtime
storm-runtime: venv ## kills apps, supervisors and the server at random for a minute: SEED=1
	@python -m tests.storm.runtime --seconds $(SECONDS_OF_STORM) --seed $(SEED)

.PHONY: test
test: venv node ## runs the tests on Python 3.11
	@$(PYTEST) -n $(WORKERS)

.PHONY: fmt
fmt: venv ## formats protos and code, and mends what ruff can
	@buf format --write
	ruff check --fix .
	ruff format .

.PHONY: generate
generate: venv ## generates both sides of the contract
	@buf lint
	python protos/generate.py

.PHONY: lock
lock: venv ## locks the newest allowed versions in requirements/*.txt
	@$(LOCK) --upgrade pyproject.toml --all-extras requirements/dev.in --output-file requirements/dev.txt
	$(LOCK) --upgrade requirements/bench.in --constraint requirements/dev.txt --output-file requirements/bench.txt

.PHONY: bench-quick
bench-quick: venv ## measures capture, follow and read-back against cat and tail, in minutes
	@python -m benchmarks

.PHONY: example-repo
example-repo: venv ## makes a git repository with a bare remote from the example app: DIR=...
	@python -m att_client.example.repository "$(DIR)"

.PHONY: node
node: ## installs what the Node example needs
	@if ! cmp -s examples/node/package.json examples/node/node_modules/.installed; then
		cd examples/node
		npm install --no-package-lock --no-audit --no-fund --loglevel=error
		cp package.json node_modules/.installed
	fi
