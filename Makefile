# Every target says what it does and how long it takes. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help lab update run test test-fast check mutation book book-files build-labs environment
.DELETE_ON_ERROR:

# The Python that makes .venv: the one given (make lab PYTHON=python3.12), else the one .venv has, else the first that is
# new enough. A variable of this name in the shell's environment counts as given.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(or $(wildcard .venv/bin/python),$(shell for python in python3 python3.13 python3.12 python3.11 python; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done),python3)
endif
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
IN_VENV := .venv/bin/python
READY := .venv/ready-$(VERSION)
# More words for pip where torch is installed, as in: make lab TORCH_FROM="--index-url ADDRESS"
TORCH_FROM ?=
# How tests are spread over cores; make test SPREAD= runs them one after the other
SPREAD ?= -n auto --maxprocesses 4

help:
	@echo "make lab             make the environment if need be, and open the course in JupyterLab (LAB=12 picks a lab)"
	@echo "make update          bring new versions of the labs into your copies, your answers kept (LAB=12 picks a lab; seconds)"
	@echo "make test            make the environment if need be, and run every test (20 minutes on two cores)"
	@echo "make test-fast       the tests that take seconds (3 minutes at most)"
	@echo "make run LAB=12      run a solved lab without a browser and sum up its results (some minutes)"
	@echo "make check           lint, format, floors, labs against their sources, links, environment files (a minute)"
	@echo "make mutation        break each solution in small ways and see that its check notices (LAB=12 picks a lab; minutes)"
	@echo "make book            build the book into _build/html (a minute or two; the first time npm fetches what pages need)"
	@echo "make book-files      the book, then its PDF, EPUB and a zip of its site in _build/files (some minutes; needs Chromium)"
	@echo "make build-labs      cut labs/ from solutions/"
	@echo "Another Python:      make lab PYTHON=python3.12"

environment: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not one. Name yours: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12"; exit 1; }
	@if [ "$$($(IN_VENV) -c 'import pip, sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$(VERSION)" ]; then \
	  echo "Bringing the environment in .venv up to date: under a minute where little has changed."; \
	else \
	  echo "Making the environment in .venv with Python $(VERSION): two to five minutes, most of it downloads."; \
	  $(PYTHON) -m venv --clear .venv || { echo "That failed (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }; \
	fi
	@rm -f .venv/ready-*
	@echo "  1 of 2: torch"
	@$(IN_VENV) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(TORCH_FROM) torch
	@echo "  2 of 2: everything else"
	@$(IN_VENV) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,book]'
	@touch $@
	@echo "The environment is ready."

lab: $(READY)
	@$(IN_VENV) -m pixelpolicy lab $(LAB)

update: $(READY)
	@$(IN_VENV) -m pixelpolicy update $(LAB)

run: $(READY)
	@[ -n "$(LAB)" ] || { echo "Which lab? For example: make run LAB=12"; exit 1; }
	@$(IN_VENV) -m pixelpolicy run $(LAB)

test: $(READY)
	@echo "Running every test: 20 minutes on two cores."
	@$(IN_VENV) -m pytest $(SPREAD)

test-fast: $(READY)
	@echo "Running the tests that take seconds: 3 minutes at most."
	@$(IN_VENV) -m pytest -m "not slow" $(SPREAD)

check: $(READY)
	@echo "Checking the course: about a minute."
	@$(IN_VENV) -m pixelpolicy check

mutation: $(READY)
	@$(IN_VENV) -m pixelpolicy mutation $(if $(LAB),--labs $(LAB))

book: $(READY)
	@$(IN_VENV) -m pixelpolicy book

book-files: book
	@$(IN_VENV) -m pixelpolicy book-files

build-labs: $(READY)
	@$(IN_VENV) -m pixelpolicy build-labs
