# Everything installs what it needs: Debian packages (as root) and the virtual environment in .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
BIN := .venv/bin
CONTROL_PLANES ?=
WORKERS ?= 2
NAME ?= default

.DEFAULT_GOAL := help
.PHONY: help up down test unit integration lint format bench soak setup clean

help:  ## this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22
	@printf '\n%s\n' 'For up: WORKERS (2), CONTROL_PLANES (1), NAME of the lab (default): make up CONTROL_PLANES=3 WORKERS=2' \
	  'For down: NAME. The first up and test on a computer build Kubernetes, which takes some minutes.'

up: setup  ## a real cluster in the lab: one control plane and two workers
	@$(BIN)/kubewright lab up --name $(NAME) $(if $(CONTROL_PLANES),--control-planes $(CONTROL_PLANES)) --workers $(WORKERS)

down: setup  ## remove the lab and leave this computer as it was
	@$(BIN)/kubewright lab down $(NAME)

test: lint unit integration  ## all checks: static ones, unit tests, then integration tests on real machines

lint: setup  ## the static checks: ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: setup  ## the unit tests: seconds, no root
	$(BIN)/pytest tests/unit -q -n auto

integration: setup  ## the integration tests, on real machines
	$(BIN)/pytest tests/integration -m "integration and not soak" -v -n 2 --durations 40

bench: setup  ## ratios against real kubeadm on the same machines in the same run
	$(BIN)/python -m bench

soak: setup  ## the long drills
	$(BIN)/pytest tests/integration -m soak -v -s

format: setup  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup:  ## install what is missing: Debian packages and .venv
	@tools/setup

clean:  ## remove .venv and the caches of the checks
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
