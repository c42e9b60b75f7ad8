# fmi: the paper's figures with one word each. `make help` lists the words.
#
# Variables such as LAYERS=relu1_2,relu2_2 are handed to the figure as they are; the README tells
# which there are. MXNET=cpu|cu112 chooses the wheel, PYTHON the interpreter for .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OWN := PYTHON VENV MXNET

# The cu112 wheel serves compute capability 5.0 to 8.9.
detect = $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null \
	| awk -F. '$$1 >= 5 && $$1 <= 8 {found = 1} END {print found ? "cu112" : "cpu"}')
MXNET ?= $(detect)

FIGURES := fig1 fig2 fig3 fig4 fig5
given = $(filter-out $(addsuffix =%,$(OWN)),$(MAKEOVERRIDES))

.DEFAULT_GOAL := help
.PHONY: help setup $(FIGURES) test lint format clean

help: ## list what there is
	@grep -hE '^[a-z0-9$$() -]+:.*##' $(MAKEFILE_LIST) \
		| sed -e 's/$$(FIGURES)/fig1 ... fig5/' -e 's/:.*## /\t/' | expand -t 16

$(VENV)/.ready: setup.py
	@case "$(MXNET)" in cpu|cu112) ;; *) echo "MXNET=$(MXNET) should be cpu or cu112" >&2; exit 2;; esac
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[$(MXNET),dev]'
	@touch $@

setup: $(VENV)/.ready ## make the virtual environment .venv (done on first use)

$(FIGURES): $(VENV)/.ready ## draw a figure into results/
	@$(BIN)/fmi draw experiments/$@.yaml $(given)

test: $(VENV)/.ready ## run the tests
	$(BIN)/python -m pytest

lint: $(VENV)/.ready ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.ready ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was made, the virtual environment included
	rm -rf $(VENV) results build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
