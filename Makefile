# fmi: the paper's figures with one word each. `make help` lists the words.
#
# Variables such as LAYERS=relu1_2,relu2_2 are handed to the figure as they are, and listed in
# docs/howto/figures.md. MXNET=cpu|cu112 chooses or changes the wheel, PYTHON the interpreter for .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OWN := PYTHON VENV MXNET BENCH

# PyTorch's CPU build; what plain PyPI serves for Linux brings CUDA along.
TORCH := https://download.pytorch.org/whl/cpu

# A package index that does not answer is given up after 20 seconds, not after 95.
export PIP_RETRIES ?= 1
export PIP_DEFAULT_TIMEOUT ?= 10

# The wheel of the environment, which .ready holds (older ones are empty).
here := $(shell cat $(VENV)/.ready 2>/dev/null)
ifeq ($(here),)
here := $(if $(wildcard $(VENV)/.ready),$(if $(wildcard \
	$(VENV)/lib/python*/site-packages/mxnet_cu112-*),cu112,cpu))
endif

# The wheel that is asked for, else the one that is here, else the one that this machine's GPU and
# driver allow, which is found out on first use alone.
detect = $(shell $(PYTHON) -I fmi/device/driver.py --wheel 2>/dev/null || echo cpu)
wheel = $(eval wheel := $(or $(MXNET),$(here),$(detect)))$(wheel)
other = $(if $(filter cpu,$(wheel)),mxnet-cu112,mxnet)

# Another package may have brought the other wheel.
both := $(and $(wildcard $(VENV)/lib/python*/site-packages/mxnet-*),$(wildcard \
	$(VENV)/lib/python*/site-packages/mxnet_cu112-*))

FIGURES := fig1 fig2 fig3 fig4 fig5

# The variables of make's own command line, each quoted for the shell, which would split a name.
quoted = '$(subst ','\'',$(1))'
names = $(sort $(foreach word,$(MAKEOVERRIDES),$(firstword $(subst =, ,$(subst :, ,$(word))))))
asked = $(strip $(foreach name,$(1),$(if $(findstring command,$(origin $(name))),$(name))))
given = $(foreach name,$(call asked,$(filter-out $(OWN),$(names))),$(call quoted,$(name)=$(value $(name))))
atlas = $(if $(call asked,RESULTS results),$(value $(firstword $(call asked,RESULTS results))),results/atlas)

.DEFAULT_GOAL := help
TRAINING := experiments/embedded/train.yaml

.PHONY: help setup demo $(FIGURES) models pictures claims atlas gallery verify train-embedded bench notebook docs doctor \
	test test-cu112 test-lowest lint format clean clean-results another-wheel

help: ## list what there is
	@grep -hE '^[a-zA-Z0-9$$() -]+:.*##' $(MAKEFILE_LIST) \
		| sed -e 's/$$(FIGURES)/fig1 ... fig5/' -e 's/:.*## /\t/' | expand -t 16

# Both wheels install the same files, so that none must be left when the other is installed.
$(VENV)/.ready: setup.py $(if $(or $(filter-out $(here),$(MXNET)),$(and $(MXNET),$(both))),another-wheel)
	@case "$(wheel)" in cpu|cu112) ;; *) echo "MXNET=$(wheel) should be cpu or cu112" >&2; exit 2;; esac
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 12))' || { \
		echo "MXNet needs Python 3.8 to 3.12: PYTHON=python3.12 chooses one" >&2; exit 2; }
	@rm -f $@
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@! $(BIN)/python -m pip show --quiet $(other) 2>/dev/null || { set -x; \
		$(BIN)/python -m pip uninstall --quiet --quiet -y mxnet mxnet-cu112; }
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[$(wheel),dev]'
	@echo $(wheel) > $@

setup: $(VENV)/.ready ## make .venv (done on first use), or change its wheel (MXNET=cpu, MXNET=cu112)

$(FIGURES): $(VENV)/.ready ## draw a figure into results/
	@$(BIN)/fmi draw experiments/$@.yaml $(given)

demo: $(VENV)/.ready ## draw small Figures 3, 4 and 5 (WEIGHTS=embedded: without any download)
	@$(BIN)/python -m experiments.demo $(given)

models: $(VENV)/.ready ## fetch the real VGG-19 (80 MB) into models/
	@$(BIN)/fmi weights fetch vgg19

pictures: $(VENV)/.ready ## fetch the paper's six pictures into pictures/
	@$(BIN)/fmi pictures fetch

verify: $(VENV)/.ready ## compute a few small panels anew and compare their numbers with the expected ones
	@$(BIN)/python -m experiments.verify

claims: $(VENV)/.ready ## measure the claims of the paper, with controls (CLAIMS=1,2, N=, K=, WEIGHTS=)
	@$(BIN)/python -m experiments.claims $(given)

atlas: $(VENV)/.ready ## invert every filter of a network, and make pages to walk through (RESULTS=dir)
	@$(BIN)/fmi sweep experiments/atlas.yaml $(given)
	@$(BIN)/fmi atlas $(call quoted,$(atlas))

gallery: $(VENV)/.ready ## draw the README's pictures
	$(BIN)/python -m experiments.gallery

train-embedded: $(VENV)/.ready ## train the embedded network anew, into results/embedded/
	$(BIN)/python -m experiments.embedded.train --config $(TRAINING) --out results/embedded
	$(BIN)/python -m experiments.embedded.export --config $(TRAINING) --run results/embedded \
		--network results/embedded/embedded.npz

$(VENV)/.bench: $(VENV)/.ready
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[bench]' \
		--extra-index-url $(TORCH) && touch $@ || echo "PyTorch cannot be installed" >&2

bench: $(VENV)/.bench ## time fmi beside PyTorch and the 2016 loop, into results/bench/ (BENCH=--quick)
	@$(BIN)/python -m experiments.bench $(BENCH)

$(VENV)/.notebook: $(VENV)/.ready
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[notebook]'
	@touch $@

notebook: $(VENV)/.notebook ## open the notebooks in JupyterLab
	@$(BIN)/python -m jupyterlab experiments/notebooks

docs: $(VENV)/.ready ## build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

doctor: $(VENV)/.ready ## tell what is here, what is missing, and what to do about it
	@$(BIN)/fmi doctor

test: $(VENV)/.ready ## run the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-cu112: ## test the wheel for GPUs on the CPU (downloads 2 GB into a fresh environment)
	PYTHON=$(PYTHON) tests/cu112.sh

test-lowest: ## test the lowest versions of all packages that setup.py allows (a fresh environment)
	PYTHON=$(PYTHON) tests/lowest.sh

lint: $(VENV)/.ready ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.ready ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the virtual environment and caches, but no results
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache

clean-results: ## remove results/ with all panels and figures
	@echo "removing $(CURDIR)/results ($$(find results -type f 2>/dev/null | wc -l) files)"
	@rm -rf results
