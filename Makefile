# make demo | make test do all their own set-up. A Python 3.11 to 3.13 and make are all they need.
.DEFAULT_GOAL := help
.PHONY: help setup demo test slow-test cluster-test campaign check bench cost accuracy lock picture similarity example docs clean

VENV := .venv
BIN := $(VENV)/bin

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/:/'

setup: $(VENV)/.ready ## make .venv with everything pinned (only what is missing is installed again)

$(VENV)/.ready: requirements.lock pyproject.toml
	@sh bin/setup $(VENV)
	@touch $@

demo: setup ## simulate, tune, train, export, serve and ask, in a quarter of an hour
	$(BIN)/stm demo

test: setup ## all tests that take less than a minute, on up to four cores; what the machine lacks is skipped
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

slow-test: setup ## the others, half an hour or more
	$(BIN)/python -m pytest -m slow

cluster-test: setup ## the tests that need a real SLURM (Debian: slurm-wlm and munge; run as root)
	$(BIN)/python -m pytest -m cluster tests/cluster

campaign: setup ## kill -9 over simulations and searches (KILLS=200), the whole chain under all faults, faults of a tracking server, a server under load (MINUTES=30) and attack (FUZZ=100000)
	@failed=; \
	$(BIN)/python tests/campaign.py --kills $(or $(KILLS),200) || failed="$$failed campaign.py"; \
	$(BIN)/python tests/campaign_tune.py --kills $(or $(KILLS),100) || failed="$$failed campaign_tune.py"; \
	$(BIN)/python tests/campaign_chain.py || failed="$$failed campaign_chain.py"; \
	$(BIN)/python tests/campaign_tracking.py || failed="$$failed campaign_tracking.py"; \
	$(BIN)/python tests/campaign_serving.py --minutes $(or $(MINUTES),30) --fuzz $(or $(FUZZ),100000) || failed="$$failed campaign_serving.py"; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

check: setup ## style, types and the rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## every benchmark, and one table of headline ratios: build/benchmarks (FULL=1: in full, hours)
	$(BIN)/python benchmarks/run_all.py $(if $(FULL),,--quick)

cost: setup ## measure what data sets of every preset cost: docs/cost.md
	$(BIN)/python benchmarks/cost.py

accuracy: setup ## train and judge both tasks with three seeds: hours; run again, it goes on
	$(BIN)/python benchmarks/impurity_accuracy.py --keep build/accuracy
	$(BIN)/python benchmarks/hubbard_accuracy.py --keep build/hubbard_accuracy --json build/hubbard_accuracy.json

docs: setup ## build the documentation with its reference: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

example: setup ## install the example of a task and a network of one's own (docs/own_task.md)
	$(or $(shell command -v uv),$(VENV)/uv/bin/uv) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e examples/honeycomb

lock: ## compile the pins anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q \
	  pyproject.toml --extra serve --extra train --extra cluster --extra dev --extra docs -o requirements.lock

picture: setup ## draw the README's picture from a finished demo
	$(BIN)/python docs/picture.py

similarity: setup ## draw how alike images of different U are, in a few minutes
	$(BIN)/python docs/similarity.py

clean: ## remove the environment and caches, keep data and runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
