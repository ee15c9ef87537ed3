# make compare: from a fresh clone to a verdict.  make test: what CI runs.
# Every target sets up .venv itself when it is missing or older than pyproject.toml.
# Options for a run go into ARGS:  make compare ARGS="--limit 200 seeds=[0]"

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Waiting threads sleep instead of spinning; with several processes at work this saves much time.
export OMP_WAIT_POLICY := PASSIVE

# The first Python on the path that is new enough.
NEWEST_LAST := python3 python3.11 python3.12 python3.13 python3.14
PYTHON ?= $(shell for p in $(NEWEST_LAST); do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# For the lower bounds: 3.12 where present (named, or as pyenv and the like keep it), otherwise the above.
PYTHON312 ?= $(shell for p in python3.12 $(HOME)/.pyenv/versions/3.12*/bin/python; do $$p -c '' 2>/dev/null && echo $$p && break; done)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOWEST := .venv-lowest
ARGS ?=
PYTEST_ARGS ?=

.PHONY: help setup compare test lint bench docs jepa-tiny zoo test-lowest

help:
	@echo "make compare      compare encoders on the built-in world; leaves runs/<name>/report.md"
	@echo "make test         lint, types, import rules and all tests of the default ring"
	@echo "make setup        make .venv and install"
	@echo "make lint         import rules, ruff, types"
	@echo "make docs         run the snippets and commands of README and docs/"
	@echo "make bench        speed and memory against references measured in the same run"
	@echo "make jepa-tiny    train a joint embedding of pictures and captions of the built-in world"
	@echo "make zoo          train the zoo again from nothing"
	@echo "make test-lowest  the tests against the lower bounds of pyproject.toml"

# $(1): venv directory, $(2): python, $(3): what to install.
# On a terminal pip shows its own progress; elsewhere one line for each package is enough.
define install
	@test -n "$(2)" || { echo "Sutura needs Python 3.11 or newer; none is on the path. Name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "setting up $(1) with $$($(2) --version) (once; torch is the largest part)"
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(2) -m venv --clear $(1)
	@if [ -t 1 ]; then \
		$(1)/bin/python -m pip install --disable-pip-version-check $(3); \
	else \
		$(1)/bin/python -m pip install --disable-pip-version-check --progress-bar off $(3) \
			| { grep --line-buffered -E '^ *(Downloading|Using cached|Processing|Installing|Building)|^Successfully' || true; }; \
	fi
	@touch $(1)/.installed
endef

$(STAMP): pyproject.toml
	$(call install,$(VENV),$(PYTHON),-e '.[dev]')

setup: $(STAMP)

compare: $(STAMP)
	@$(BIN)/sutura compare $(ARGS)

lint: $(STAMP)
	@echo "import rules"
	@$(BIN)/lint-imports --no-logo
	@echo "ruff check"
	@$(BIN)/ruff check
	@echo "ruff format"
	@$(BIN)/ruff format --check
	@echo "types"
	@$(BIN)/basedpyright

test: lint
	@echo "tests"
	@$(BIN)/python -m pytest -q $(PYTEST_ARGS)

docs: $(STAMP)
	@$(BIN)/python -m pytest -q tests/docs

# A file with a __main__ part is a benchmark; the others are references they measure against.
bench: $(STAMP)
	@for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script; done

jepa-tiny: $(STAMP)
	@$(BIN)/sutura jepa train --preset jepa/tiny $(ARGS)

zoo: $(STAMP)
	@$(BIN)/sutura zoo build all $(ARGS)

$(LOWEST)/.installed: pyproject.toml
	$(call install,$(LOWEST),$(or $(PYTHON312),$(PYTHON)),-e '.[dev]' 'torch==2.11.*' 'torchvision==0.26.*' 'transformers==5.17.*')

test-lowest: $(LOWEST)/.installed
	@$(LOWEST)/bin/python -c "import sys, torch, transformers; print('Python', sys.version.split()[0], '· torch', torch.__version__, '· transformers', transformers.__version__)"
	@$(LOWEST)/bin/python -m pytest -q $(PYTEST_ARGS)
