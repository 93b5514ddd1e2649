# Everything starts here. Each target sets up what it needs first: `.venv`, the locked dependencies, Mosquitto;
# for tests and benchmarks also InfluxDB 1.x and VictoriaMetrics, for tests Chromium, as packages without a running service.
# A second run finds all in place and starts at once. Another Python: make demo PYTHON=python3.12

PYTHON ?=
# Tests wait a quarter of their time, for processes they killed and for clocks: three keep two cores busy.
WORKERS ?= 3
VENV := .venv
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup demo test torture check bench docs lock clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 16

setup:  ## .venv with the locked dependencies, and Mosquitto
	@sh deploy/setup.sh all mosquitto

demo: setup  ## the ceramic plant, end to end; ARGS='--plant remanufacturing --json' passes options
	@$(VENV)/bin/shoal demo $(ARGS)

test:  ## all tests; ARGS='-k outbox' passes options to pytest; WORKERS=2: fewer at once
	@sh deploy/setup.sh dev tests
	@$(VENV)/bin/python -m pytest -n $(WORKERS) $(ARGS)

torture:  ## kill everything, 20 times each, for 11 min; prove that nothing was lost; ARGS='--store influx1'
	@sh deploy/setup.sh all stores
	@$(VENV)/bin/shoal torture $(ARGS)

check:  ## style, format, types, and that every test can be imported
	@sh deploy/setup.sh dev
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy & types=$$!; \
	said=$$($(VENV)/bin/python -m pytest --collect-only -q 2>&1) || \
		{ echo "$$said" | grep -v '^tests/.*: [0-9]*$$'; wait $$types; exit 1; }; \
	wait $$types

bench:  ## every benchmark, quick; ARGS='' for the full length
	@sh deploy/setup.sh bench stores
	@for program in $(filter-out benchmarks/_%.py,$(wildcard benchmarks/*.py)); do \
		echo "# $$program" >&2; $(VENV)/bin/python $$program $(if $(filter undefined,$(origin ARGS)),--quick,$(ARGS)) || exit 1; \
	done

docs: setup  ## topic map, JSON Schemas and AsyncAPI from the contracts
	@$(VENV)/bin/shoal topics --write

lock:  ## new requirements.lock from pyproject.toml (needs uv)
	@sh deploy/lock.sh

clean:  ## what make made: .venv, caches, out/
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
