# The commands for people and CI. `make help` lists them.
PYTHON ?= python3
ARGS ?=
PY := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help run test check lint dev

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 14

run: ## install what is missing into .venv and start the app; ARGS="--help" lists its options
	@PYTHON="$(PYTHON)" tools/install.sh requirements.txt
	@exec $(PY) app.py $(ARGS)

test: dev ## everything: style, types, all tests, browser tests included
	@tools/chromium.sh
	@$(MAKE) --no-print-directory lint
	@$(PY) -m pytest

check: dev lint ## style, types and the tests without a browser
	@$(PY) -m pytest -m "not browser"

lint: dev ## style and types alone
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

dev: ## install the tools of development into .venv
	@PYTHON="$(PYTHON)" tools/install.sh requirements.txt requirements-dev.txt
