# make run     the whole comparison: train, merge, convert, evaluate, report
# make test    lint, types and tests
# make bench   this project against its peers, side by side
# All install what they need first, into .venv, from requirements.lock.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/requirements.lock
# Stages call `python`: this makes it the one of .venv, also where nobody activated it. Not exported to every recipe:
# the one that makes .venv must not run the python that it is about to replace.
WITH_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"
BENCHMARKS := gguf_scoring gguf_kld decode generation mmlu mmlu_agreement harness zoo memory preparation methods train_lora train_full cost_noise coverage scaling kills faults beside_load chat runner cluster

.PHONY: run install test lint audit bench clean help
.DEFAULT_GOAL := help

run: $(READY)  ## run what has changed (everything, the first time): how long it will take, step by step, then the decision
	@$(WITH_VENV) $(BIN)/python -m tradeoffs.repro $(ARGS)
	@$(BIN)/python -m tradeoffs.repro.ending

install: $(READY)  ## .venv with all that is needed, and nothing else

test: $(READY) lint  ## lint, types and tests, with the slowest named; ARGS='-m "not slow"' for the quick ones alone
	$(WITH_VENV) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 30 $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit:  ## known vulnerabilities of what the lock files pin, where PyPI's advisories can be asked
	@PYTHON='$(PYTHON)' .ci/audit

# One after the other: timings of two at a time mean nothing. One that fails does not keep the others from running. Which
# code each result measured is written down and shown at the end.
bench: $(READY)  ## compare with the peers (benchmarks/README.md says what that needs); ARGS=--quick only shows that it works
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -r requirements-bench.lock -r requirements-harness.lock -r requirements-cluster.lock
	@failed=; for name in $(BENCHMARKS); do \
		$(WITH_VENV) $(BIN)/python -m benchmarks.$$name $(ARGS) || failed="$$failed $$name"; \
	done; \
	$(BIN)/python -m benchmarks.status || failed="$$failed status"; \
	test -z "$$failed" || { echo "error: these benchmarks failed:$$failed" >&2; exit 1; }

clean:  ## remove the environment, outputs, unfinished work and scratch files; committed results and DVC's cache stay
	rm -rf .venv .scratch .pytest_cache .ruff_cache .mypy_cache
	rm -rf data/prepared data/general data/tokens data/lengths data/training data/reference data/items data/seeds data/facts
	rm -rf data/templates data/copying data/scores.parquet data/cost.json data/tasks/*/
	rm -rf models/base models/trained models/merged models/converted models/gguf
	find live -mindepth 1 ! -name .gitignore -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 10

# Exact pins, so everything is installed anew when they change. The stamp is written last: what broke off is done again.
$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "error: Python 3.11 or newer is needed as '$(PYTHON)'; name another with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "error: $(PYTHON) lacks the venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@for tool in cc c++ git; do command -v $$tool >/dev/null \
		|| { echo "error: '$$tool' is needed and not on the PATH (Debian: apt install build-essential git)" >&2; exit 1; }; done
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m tradeoffs.convert.fetch_converter
	cp requirements.lock $(READY)
