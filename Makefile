# `make demo` and `make test` are the two commands of README; everything else is detail.
CORES ?= $(shell env -u OMP_NUM_THREADS nproc)
PY := .venv/bin/python
# One OpenMP thread per job: two threads beside another busy process measured 10 to 30 times slower than one.
export OMP_NUM_THREADS ?= 1
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: setup demo test lint format
setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Distillery needs Python 3.11 or newer, this is " + sys.version)'
	python3 -m venv .venv
	$(PY) -m pip install --quiet --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: setup  ## run the study in params.yaml on all local cores, then print its table
	snakemake --cores $(CORES) --quiet rules
	distillery show

test: setup lint
	$(PY) -m pytest -n $(CORES) --dist loadfile

lint: setup
	ruff check .
	ruff format --check .
	mypy

format: setup
	ruff check --fix .
	ruff format .
