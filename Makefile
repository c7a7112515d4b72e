# make help lists the targets. On a system without make, README.md gives the commands behind each one.

PYTHON ?= python3
VENV ?= .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
STAMP := $(VENV)/.complete

# Every other variable given on make's own command line is a parameter of the study: K=1 becomes -p k "1".
OURS := PYTHON VENV ARGS PYTEST
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
NAMES := $(filter-out $(OURS) MAKE%,$(GIVEN))
PARAMETERS = $(foreach name,$(NAMES),-p $(shell printf '%s' '$(name)' | tr '[:upper:]' '[:lower:]') "$$$(name)")

# Of what takes none of them.
NO_PARAMETERS = $(if $(NAMES),$(error make $@ takes no $(NAMES): give its options in ARGS="…"))

# A file's tests stay together, as they share what is costly to make; files are begun in the order of conftest.py.
# Three at a time keep two cores busy: tests of pages and notebooks wait for browsers and kernels. The quick tests do
# not, and each process takes seconds to import them all.
PYTEST := -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Every kernel and worker would compile the package again where this is set, which takes longer than most tests.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup hooks study pages lab bench test check lint format clean-notebooks

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "make study takes any parameter of the notebooks in upper case:"
	@echo "  make study DATASET=mnist K=1 SEED=3 TIME_STEPS=8    (ann-snn study --help lists them)"

setup: $(STAMP) ## create or update the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, and \
	$(PYTHON) is %d.%d: name another one, as in make setup PYTHON=python3.12" % sys.version_info[:2])'
	@test -x $(BIN)/python || { echo "creating $(VENV): a few minutes and some 7 GB" && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install -c constraints.txt -e ".[fast,formats,test]"
	@touch $(STAMP)

hooks: $(STAMP) ## check style before every commit
	$(BIN)/python -m pre_commit install

study: $(STAMP) ## run the notebooks in order and print the results
	@$(BIN)/python -m ann_snn_utils study $(PARAMETERS) $(ARGS)

pages: $(STAMP) ## run all notebooks and write them as a site of plain files, data/site/index.html
	@$(BIN)/python -m ann_snn_utils study --notebooks 00-99 --site data/site $(PARAMETERS) $(ARGS)

lab: $(STAMP) ## open JupyterLab on the notebooks
	$(NO_PARAMETERS)
	$(BIN)/python -m jupyterlab $(ARGS) notebooks/05_explore.ipynb

bench: $(STAMP) ## time the simulator against an ANN and, where installed, other simulators
	$(NO_PARAMETERS)
	@$(BIN)/python -m ann_snn_utils bench $(ARGS)

test: $(STAMP) ## run the whole test suite
	$(NO_PARAMETERS)
	$(BIN)/python $(PYTEST) $(ARGS)

check: $(STAMP) ## run the quick tests, with a fifth of their random examples: a minute or so on two cores
	$(BIN)/python $(PYTEST) -n 2 -m "not slow" --hypothesis-profile=quick $(ARGS)

lint: $(STAMP) ## check style, types and the order of imports
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

format: $(STAMP) ## put the code in form
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean-notebooks: $(STAMP) ## strip outputs and run metadata from the notebooks
	$(BIN)/python -m nbstripout --keep-id \
	--extra-keys "metadata.papermill cell.metadata.papermill metadata.language_info" notebooks/*.ipynb
