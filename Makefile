# fmi: the paper's figures with one word each. `make help` lists the words.
#
# Variables such as LAYERS=relu1_2,relu2_2 are handed to the figure as they are; the README tells
# which there are. MXNET=cpu|cu112 chooses the wheel, PYTHON the interpreter for .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OWN := PYTHON VENV MXNET BENCH

# PyTorch's CPU build; what plain PyPI serves for Linux brings CUDA along.
TORCH := https://download.pytorch.org/whl/cpu

# The wheel that this machine's GPU and driver allow, else the CPU's.
detect = $(shell $(PYTHON) -I fmi/device/driver.py --wheel 2>/dev/null || echo cpu)
MXNET ?= $(detect)

FIGURES := fig1 fig2 fig3 fig4 fig5
given = $(filter-out $(addsuffix =%,$(OWN)),$(MAKEOVERRIDES))

.DEFAULT_GOAL := help
TRAINING := experiments/embedded/train.yaml

.PHONY: help setup demo $(FIGURES) models pictures gallery train-embedded bench doctor \
	test test-cu112 lint format clean

help: ## list what there is
	@grep -hE '^[a-zA-Z0-9$$() -]+:.*##' $(MAKEFILE_LIST) \
		| sed -e 's/$$(FIGURES)/fig1 ... fig5/' -e 's/:.*## /\t/' | expand -t 16

$(VENV)/.ready: setup.py
	@case "$(MXNET)" in cpu|cu112) ;; *) echo "MXNET=$(MXNET) should be cpu or cu112" >&2; exit 2;; esac
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 12))' || { \
		echo "MXNet needs Python 3.8 to 3.12: PYTHON=python3.12 chooses one" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[$(MXNET),dev]'
	@touch $@

setup: $(VENV)/.ready ## make the virtual environment .venv (done on first use)

$(FIGURES): $(VENV)/.ready ## draw a figure into results/
	@$(BIN)/fmi draw experiments/$@.yaml $(given)

demo: $(VENV)/.ready ## draw small Figures 3, 4 and 5 (WEIGHTS=embedded: without any download)
	@$(BIN)/python -m experiments.demo $(given)

models: $(VENV)/.ready ## fetch the real VGG-19 (80 MB) into models/
	@$(BIN)/fmi weights fetch vgg19

pictures: $(VENV)/.ready ## fetch the paper's six pictures into pictures/
	@$(BIN)/fmi pictures fetch

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

doctor: $(VENV)/.ready ## tell what is here, what is missing, and what to do about it
	@$(BIN)/fmi doctor

test: $(VENV)/.ready ## run the tests
	$(BIN)/python -m pytest

test-cu112: ## test the wheel for GPUs on the CPU (downloads 2 GB into a fresh environment)
	PYTHON=$(PYTHON) tests/cu112.sh

lint: $(VENV)/.ready ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.ready ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was made, the virtual environment included
	rm -rf $(VENV) results build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
