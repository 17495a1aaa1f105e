# `make demo` and `make test` are the two commands of README; everything else is detail.
CORES ?= $(shell env -u OMP_NUM_THREADS nproc)
PY := .venv/bin/python
# One OpenMP thread per job: two threads beside another busy process measured 10 to 30 times slower than one.
export OMP_NUM_THREADS ?= 1
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: setup demo test lint format
setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml setup.py
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Distillery needs Python 3.11 or newer, this is " + sys.version)'
	python3 -m venv .venv
	$(PY) -m pip install --quiet --no-compile --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
# On all cores: pip takes one. It fails for some templates of packages, which are no Python.
	$(PY) -m compileall -qq -j 0 .venv/lib 2>/dev/null || true
	touch $@

# In a folder of its own, which git ignores: what another processor makes of the study replaces no recorded result.
demo: setup  ## run the digits study on all local cores, print its table, compare it with the recorded one
	distillery init demo --study digits --force
	cd demo && snakemake --cores $(CORES)
	cd demo && distillery show
	cd demo && distillery verify --page verified.html $$(git rev-parse --quiet --verify HEAD >/dev/null 2>&1 && echo HEAD || echo ..)

# A worker more than cores: the tests of Slurm wait more than they work. A crashed worker's tests are not tried again.
test: setup lint
	$(PY) -m pytest -n $$(( $(CORES) + 1 )) --dist loadfile --no-loadscope-reorder --max-worker-restart=0 --durations=30

lint: setup
	ruff check .
	ruff format --check .
	mypy

format: setup
	ruff check --fix .
	ruff format .
