# Every habit of this project, one word each. `make` lists them.
# All tools come from requirements/dev.txt; a machine needs Python 3.11, git, make and Node 20.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Compiled once, not at each of the thousands of starts of a process in the tests.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := python -m pytest
# Tests wait for other processes more than they compute: two workers for each processor.
WORKERS ?= $(shell echo $$((2 * $$(nproc))))
PARALLEL := -n $(WORKERS) --dist worksteal --durations 20
CHECK_MCP := python -m tests.mcp.conformance --cache .cache/check-mcp
SEED ?= 1
SECONDS_OF_STORM ?= 60
SECONDS_OF_FUZZ ?= 120
CYCLES_OF_STORM ?= 300
CYCLES_OF_OWN_STORM ?= 20
BENCH ?=
# Extras stay in the lock: pip takes `coverage==1` for no pin of `coverage[toml]`, and fails
# on the day a newer release appears.
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras \
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

.PHONY: check-mcp
check-mcp: venv ## checks the bridge by the protocol's conformance suite and inspector
	@$(CHECK_MCP)

.PHONY: demo-self
demo-self: venv ## shows ATT releasing itself: one good change, three bad ones, an app that goes on
	@python -m tests.own.demo

.PHONY: check
check: venv node ## runs every gate, as CI does
	@step() { printf '\n== %s\n' "$$*"; "$$@"; }
	# The types take one processor as long as the other gates take the other one.
	types=$$(mktemp)
	mypy > $$types 2>&1 & checking=$$!
	trap 'kill $$checking 2> /dev/null || true; rm -f $$types' EXIT
	step buf lint
	step buf format --diff --exit-code
	step .ci/breaking
	step python protos/generate.py --check
	step ruff format --check .
	step ruff check .
	step lint-imports
	step $(CHECK_MCP)
	step .ci/audit || (( $$? == 3 ))
	printf '\n== mypy\n'
	wait $$checking || { cat $$types; exit 1; }
	cat $$types
	step .ci/tests $(PARALLEL)
	if ! .ci/python 3.13 > /dev/null; then
		echo "Python 3.11 TESTED, Python 3.13 NOT FOUND"
		exit 0
	fi
	.ci/venv .venv-3.13 3.13
	# The rules, the wire, the SDK and the supervisor once more, on 3.13, where it costs next to
	# nothing to see what of the rules and the wire is covered.
	PATH="$(CURDIR)/.venv-3.13/bin:$$PATH" COVERAGE_CORE=sysmon \
		step .ci/tests $(PARALLEL) --cov --cov-report=term:skip-covered \
		$(addprefix tests/,core rpc client supervisor)
	echo "Python 3.11 TESTED, Python 3.13 TESTED"

.PHONY: coverage
coverage: venv ## shows what all tests cover, in every process that they start
	@$(PYTEST) $(PARALLEL) --cov --cov-config=.ci/coverage.toml --cov-report=term:skip-covered

.PHONY: audit
audit: venv ## asks whether a locked dependency is known to be vulnerable
	@.ci/audit

.PHONY: check-generated
check-generated: venv ## says whether the generated code is current
	@python protos/generate.py --check

.PHONY: check-faults-long
check-faults-long: venv ## runs the fault tests with 100 kills each instead of 10
	@$(PYTEST) tests/faults --kills 100 --timeout 1800

.PHONY: check-properties
check-properties: venv ## looks for examples that break a property, other ones each time
	@$(PYTEST) $(PARALLEL) --hypothesis-profile explore --timeout 1800 \
		$$(grep -rlE '^from hypothesis|^import hypothesis' tests --include='test_*.py')

.PHONY: check-compat
check-compat: venv ## runs earlier releases and this one over one state directory: BASE=v0.2.0
	@base="$${BASE:-$$(.ci/previous)}"
	kept=$$(cd tests/compat && ls release-*.tar.xz | sed 's/^release-//; s/\.tar\.xz$$//')
	printf 'by turns with this release: %s\n' $$kept $$base
	$(PYTEST) tests/compat -n $(WORKERS) $$(printf -- '--previous %s ' $$kept $$base)

.PHONY: check-cgroup
check-cgroup: venv ## shows the kernel bounding apps by control groups, in a machine under QEMU
	@python -m tests.cgroup.vm --cache .cache/check-cgroup

.PHONY: check-github
check-github: venv ## sends every request to GitHub to a server made of its own description
	@python -m tests.github.prism --cache .cache/check-github

.PHONY: github-openapi
github-openapi: venv ## cuts that description anew, from the newest npm package
	@npm install --prefix .cache/github-openapi --no-package-lock --no-audit --no-fund --loglevel=error \
		@octokit/openapi@latest
	python -m tests.github.subset \
		.cache/github-openapi/node_modules/@octokit/openapi/generated/api.github.com.json

.PHONY: storm-runtime
storm-runtime: venv ## kills apps, supervisors and the server at random for a minute: SEED=1
	@python -m tests.storm.runtime --seconds $(SECONDS_OF_STORM) --seed $(SEED)

.PHONY: storm-cycles
storm-cycles: venv ## releases 300 changes while everything is killed or away, and counts: SEED=1
	@python -m tests.storm.cycles --cycles $(CYCLES_OF_STORM) --seed $(SEED)
	python -m tests.storm.outages --seed $(SEED)
	python -m tests.github.storm --seed $(SEED)

.PHONY: storm-self
storm-self: venv ## has ATT release itself 20 times, half of it bad, while server and launcher are killed
	@python -m tests.own.storm --cycles $(CYCLES_OF_OWN_STORM) --seed $(SEED)

.PHONY: fuzz
fuzz: venv ## calls every rpc with hostile and valid requests by all kinds of callers: SEED=1
	@python -m tests.fuzz.campaign --seconds $(SECONDS_OF_FUZZ) --seed $(SEED)
	$(PYTEST) -q tests/fuzz/test_http2.py

.PHONY: soak-logs
soak-logs: venv ## writes, trims and follows logs while everything is killed, and counts: SEED=1
	@python -m tests.storm.logs --seconds $(SECONDS_OF_STORM) --seed $(SEED)

.PHONY: test
test: venv node ## runs the tests on Python 3.11
	@$(PYTEST) $(PARALLEL)

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
	$(LOCK) pyproject.toml --extra server requirements/release.in --constraint requirements/dev.txt --output-file requirements/release.txt
	$(LOCK) --upgrade requirements/audit.in --output-file requirements/audit.txt
	for what in plots supervisord jetstream; do
		$(LOCK) --upgrade requirements/bench-$$what.in --output-file requirements/bench-$$what.txt
	done

.PHONY: bench-quick
bench-quick: venv ## measures capture, follow and read-back against cat and tail, in minutes
	@python -m benchmarks

.PHONY: bench
bench: venv ## measures ATT by turns with cat, supervisord, pm2 and JetStream, for an hour
	@python -m benchmarks.peers .cache/bench
	python -m benchmarks --peers .cache/bench --title peers $(BENCH)

.PHONY: bench-scale
bench-scale: venv ## measures how cost grows with lines, followers, projects and history
	@python -m benchmarks.peers .cache/bench
	python -m benchmarks.scale --peers .cache/bench $(BENCH)

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
