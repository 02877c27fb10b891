# Everything installs what it needs: Debian packages (as root) and the virtual environment in .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
BIN := .venv/bin
CONTROL_PLANES ?= 1
WORKERS ?= 2
NAME ?= default

.PHONY: up down test unit integration lint format bench soak setup clean

up: setup  ## a real cluster in the lab: one control plane and two workers
	@$(BIN)/kubewright lab up --name $(NAME) --control-planes $(CONTROL_PLANES) --workers $(WORKERS)

down: setup  ## remove the lab and leave this computer as it was
	@$(BIN)/kubewright lab down $(NAME)

test: lint unit integration  ## all checks: static ones, unit tests, then integration tests on real machines

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: setup
	$(BIN)/pytest tests/unit -q

integration: setup
	$(BIN)/pytest tests/integration -m "integration and not soak" -v

bench: setup  ## ratios against real kubeadm on the same machines in the same run
	$(BIN)/python -m bench

soak: setup  ## the long drills
	$(BIN)/pytest tests/integration -m soak -v -s

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup:
	@tools/setup

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
