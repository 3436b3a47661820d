# Targets with a `##` are listed by `make help`. Nothing is installed outside .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON  ?= python3
DATASET ?= darkcovidnet
MODELS  ?= cnn,resnet50,mobilenetv2
PY      := .venv/bin/python
COMMA   := ,
RUNS    := $(or $(CXR_ARTIFACTS),artifacts)
DATA    := $(or $(CXR_DATA),data)
# A release that was begun goes on, also past midnight.
BEGUN   := $(notdir $(patsubst %/.work/,%,$(lastword $(sort $(wildcard $(RUNS)/release-*/.work/)))))
# What is asked about an existing run is asked about the release, unless RUN= says otherwise.
ASKED   := $(if $(filter command environment,$(firstword $(origin RUN))),$(RUN),release)
ZOO_RUN := $(if $(filter command environment,$(firstword $(origin RUN))),$(RUN),zoo-$(subst $(COMMA),-,$(notdir $(DATASET))))
RUN     ?= $(or $(BEGUN),release-$(shell date +%Y-%m-%d))

# What is installed is marked by files named after the pins, so a second call installs nothing
# and a changed pin installs again.
PINS := $(shell cat requirements*.txt constraints.txt | cksum | tr -d ' ')
VENV := .venv/.created
DASH := .venv/.dashboard-$(PINS)
FULL := .venv/.full-$(PINS)
DEV  := .venv/.dev-$(PINS)
# Byte code is made when a module is first imported: sooner there than compiling all that is installed.
# Where it may not be written each process compiles TensorFlow and Keras anew: 20 s in place of 3.
unexport PYTHONDONTWRITEBYTECODE
PIP  := $(PY) -m pip install --quiet --no-compile --disable-pip-version-check --requirement

.PHONY: help setup data train-all train-zoo audit bench report torture dashboard demo test test-fast lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: $(FULL) ## install what training needs into .venv (TensorFlow included)

data: $(FULL) ## fetch and check a data set (DATASET=darkcovidnet)
	@$(PY) -m core data "$(DATASET)"

train-all: $(FULL) ## train and evaluate the three models (DATASET=a or a,b, RUN=, MODELS=, FOLDS=5, MIXED=measure); goes on where it broke off
	@$(call train,$(DATASET),$(RUN),$(if $(FOLDS),--folds "$(FOLDS)"))

train-zoo: $(FULL) ## train the field's notebooks' models beside ours under one protocol (DATASET=, RUN=zoo-DATASET); no guard, no maps
	@$(call fit,$(DATASET),$(ZOO_RUN),$(if $(filter command environment,$(origin MODELS)),$(MODELS),zoo),)

audit: $(FULL) ## leakage, blackout, source probe, perturbation, subgroups of a run (RUN=release)
	@$(PY) -m core audit --run "$(ASKED)"

bench: $(DEV) ## measure statistics, pages, live answers, training against the usual way, memory and the audit here (NAMES=)
	@failed=0; $(call bench,core bench,$(filter-out $(OF_PAGES),$(NAMES))) || failed=1; \
	$(call bench,dashboard.bench,$(filter $(OF_PAGES),$(NAMES))) || failed=1; exit $$failed

report: $(DASH) ## an HTML page about each picture, to hand over (PICTURE=file or folder, RUN=release, OUT=reports)
	@$(if $(PICTURE),,echo "Which picture? make report PICTURE=image.png" >&2; exit 2)
	@$(PY) -m core predict --run "$(ASKED)" --report "$(or $(OUT),reports)" "$(PICTURE)"

torture: $(DEV) ## feed the loader mutated files, and let 20 people ask at once for a minute
	@$(PY) -m core bench fuzz
	@$(PY) -m dashboard.bench people

dashboard: $(DASH) ## open the dashboard on the runs in artifacts/ (PORT=, ADDRESS=)
	@$(DASHBOARD)

demo: $(FULL) ## no data needed: train all three on drawn phantoms (minutes), then open the dashboard
	@$(call train,phantom,demo,--quick)
	@CXR_RUN=demo $(DASHBOARD)

test: $(DEV) ## run the tests (ARGS="-k metrics"); browser tests want chromium
	@$(PY) -m pytest $(or $(ARGS),-n 2 --dist worksteal)

test-fast: $(DEV) ## run the tests that take seconds: no training, no browser, no walk over pages
	@$(PY) -m pytest -n 2 --dist worksteal -m "not slow and not browser" $(ARGS)

lint: $(DEV) ## check style, format, layers and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -c "from importlinter.cli import lint_imports_command as lint; lint()" --no-logo
	@$(PY) -m mypy

format: $(DEV) ## mend style and format
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

clean: ## remove .venv and caches; data and runs stay
	rm -rf .venv .cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# $(call bench,command,its names out of NAMES): all of them without NAMES, nothing where none is meant.
OF_PAGES = pages people
bench = $(if $(NAMES),$(if $(2),$(PY) -m $(1) $(2),:),$(PY) -m $(1))

DASHBOARD = $(PY) -m dashboard $(if $(PORT),--port "$(PORT)") $(if $(ADDRESS),--address "$(ADDRESS)")

# $(call fit,data set,run,models,more options): nothing where the run is there, --resume where it
# broke off; a data set that is not there is fetched first (phantoms are drawn by the training itself).
define fit
if [ -e "$(RUNS)/$(2)/run.json" ]; then echo "$(RUNS)/$(2) is there already; delete it or give another RUN= to train again."; else IFS=, read -ra sets <<< "$(1)"; for set in "$${sets[@]}"; do [ "$$set" = phantom ] || [ -d "$$set" ] || [ -d "$(DATA)/$$set" ] || $(PY) -m core data "$$set"; done; $(PY) -m core train --dataset "$(1)" --models "$(3)" --run "$(2)" $(4) $(if $(MIXED),--mixed "$(MIXED)") $$([ -d "$(RUNS)/$(2)/.work" ] && echo --resume || true); fi
endef

# $(call train,data set,run,more options): the three models, then what is measured of a run.
define train
$(call fit,$(1),$(2),$(MODELS),$(3)); $(call measure,$(2))
endef

# $(call measure,run): its guard and its heat maps, unless they are there; 1: something was not measured.
define measure
for step in guard maps; do [ -d "$(RUNS)/$(1)/$$step" ] || $(PY) -m core $$step --run "$(1)" || [ $$? = 1 ]; done
endef

$(VENV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "Python 3.11, 3.12 or 3.13 is needed (for 3.14, TensorFlow, h5py and pyjpegls have no wheels yet): make PYTHON=/path/to/python3.13 …" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { echo "The virtual environment could not be made; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@touch $@

$(DASH): | $(VENV)
	@echo "Installing what the dashboard needs into .venv (once, about a minute) …" >&2
	@$(PIP) requirements-dashboard.txt
	@rm -f .venv/.dashboard-* && touch $@

$(FULL): | $(VENV)
	@echo "Installing what training needs into .venv (once, a few minutes: TensorFlow is large) …" >&2
	@$(PIP) requirements.txt
	@rm -f .venv/.dashboard-* .venv/.full-* && touch $(DASH) $@

$(DEV): | $(VENV)
	@echo "Installing what the tests need into .venv (once, a few minutes: TensorFlow is large) …" >&2
	@$(PIP) requirements-dev.txt
	@rm -f .venv/.dashboard-* .venv/.full-* .venv/.dev-* && touch $(DASH) $(FULL) $@
