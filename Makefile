# Two commands: `make book` and `make test`. Each sets everything up first, in .venv; a second one installs nothing.

VENV ?= .venv
# Without OMP_NUM_THREADS, which nproc would answer with.
CORES ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
WORKERS ?= 2

# One thread per worker: pages and tests run side by side, and more threads than cores slow torch down a hundredfold.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export NUMBA_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

# Nothing of a person's own Python, shell or engine takes part, and text is UTF-8 whatever the locale.
# Compiled code is kept: without it (PYTHONDONTWRITEBYTECODE) each of some hundred processes compiles thousands of files anew.
unexport PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONUSERBASE PYTHONIOENCODING PYTHONOPTIMIZE PYTHONINSPECT PYTHONWARNINGS
unexport PYTHONDONTWRITEBYTECODE
unexport CDPATH MYPYPATH SNAKEMAKE_PROFILE
export PYTHONUTF8 := 1
export PYTHONNOUSERSITE := 1

ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for p in python3.11 python3.12 python3; do \
	$$p -I -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)
endif
NO_PYTHON = Earwitness needs Python 3.11 or 3.12 and found neither. Debian, Ubuntu: sudo apt install python3.11 \
	python3.11-venv (or python3.12 python3.12-venv); macOS: brew install python@3.11; or name one: make PYTHON=/path/to/python3.11
# The environment's commands first, so that what Snakemake and Jupyter start is the environment's too.
RUN = PATH="$$(cd "$(VENV)/bin" && pwd):$$PATH"
# In surroundings of its own: caches where they can be written, no personal settings.
PY = $(RUN) python -m earwitness.surroundings
SNAKEMAKE = $(PY) -m snakemake --snakefile notebooks/Snakefile --cores $(CORES)
FAST = not slow and not book and not browser

.DEFAULT_GOAL := help
.PHONY: help setup corpus pocket book book-full real picture test check lint lock clean

help:  ## say what can be made
	@echo "Earwitness. First time here: make book"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup:  ## install everything into .venv (other targets do it for you)
	@$(if $(PYTHON),,echo "$(NO_PYTHON)" >&2; exit 1)
	@"$(PYTHON)" requirements/install.py --venv "$(VENV)" --torch "$(TORCH)"

corpus: setup  ## render the pocket corpus to audio files under results/
	@$(PY) -m earwitness.pocket corpus

pocket: setup  ## train the pocket models again from nothing
	@$(PY) -m earwitness_build train

book: setup  ## execute the pages and build the book
	@$(SNAKEMAKE) book
	@echo "The book: book/_build/html/index.html"

book-full: setup  ## the same with every experiment on everything (up to an hour)
	@$(SNAKEMAKE) book_full
	@echo "The book: book/_build/html/index.html"

real: setup  ## run one experiment on published weights: make real PAGE=<id>, of the page Full-scale experiments
	@$(if $(PAGE),,echo "Which one? make real PAGE=<id>; the book page Full-scale experiments lists them" >&2; exit 2)
	@$(PY) -m earwitness.book.pages needs "$(PAGE)"
	@$(SNAKEMAKE) "book/pages/$(PAGE).ipynb"

picture: book  ## save the welcome page's figure as the README's picture
	@$(PY) -m earwitness.book.pages picture welcome book/_static/result.svg

test: lint  ## lint and run the fast tests
	@$(PY) -m pytest -n $(WORKERS) -m "$(FAST)"

check: book  ## run the slow tests, on a built book and in a browser
	@$(PY) -m pytest -n $(WORKERS) -m "not ($(FAST))"

lint: setup  ## ruff, mypy, and no outputs in the templates
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m nbstripout --verify --keep-id notebooks/*.ipynb

lock: setup  ## resolve requirements/*.in again
	@$(PY) requirements/lock.py

clean:  ## remove the built book and caches; results/ and the environment stay
	rm -rf book/_build book/pages book/_static/mathjax .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
