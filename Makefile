# `make demo` and `make test` do all set-up themselves on a machine with Python 3.11 or later.

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.s2vc-ready
PYTEST_ARGS ?= -n 2 --dist loadfile
CLIPS ?= clips
CODE := s2vc_model s2vc_ray jobs tests infra

export OMP_WAIT_POLICY = passive
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo test lint format bench setup clean
.DEFAULT_GOAL := test

demo: $(READY)
	$(BIN)/python -m jobs.demo

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: $(READY)
	$(BIN)/python -m jobs.bench speed
	$(BIN)/python -m jobs.bench quality --clips $(CLIPS)

setup: $(READY)

# One stamp: an edited pyproject.toml installs again, anything else starts at once.
$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later found; set PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[dev,bench,demo,guards]'
	$(BIN)/python -m s2vc_model.metrics.weights
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
