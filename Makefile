# `make book` and `make test` are all a newcomer needs; `make` alone lists the rest.
# The environment lives in .venv, all that a run writes in runs/ and book/: nothing outside the project changes.

PYTHON ?= python3
JOBS ?= 2

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

BIN := .venv/bin
READY := .venv/ready
SMOKE := runs/smoke
EXECUTED := $(SMOKE)/notebooks
CODE := ddlib tests notebooks book benchmarks workflow

GUIDANCE := none clom cclom both
STRATEGIES := single random sequential shuffled loss_avg grad_avg grad_norm_avg \
	logit_avg prob_avg accuracy_weighted pcgrad mgda

BASELINES := random herding k_center full

TOUR := $(EXECUTED)/00_tour.ipynb
GUIDED := $(GUIDANCE:%=$(EXECUTED)/01_guidance-%.ipynb)
BASES := $(BASELINES:%=$(EXECUTED)/01_baseline-%.ipynb)
ENSEMBLES := $(STRATEGIES:%=$(EXECUTED)/02_ensemble-%.ipynb)
EQUAL_PASSES := $(EXECUTED)/02_equal_passes-random.ipynb
COMPARISON := $(EXECUTED)/03_compare.ipynb
COSTS := $(EXECUTED)/04_costs.ipynb
PAGES := $(addprefix book/executed/,00_tour.ipynb 01_guidance.ipynb 02_ensemble.ipynb 03_compare.ipynb 04_costs.ipynb)

# The core runs notebooks again; the study, which reads records, the comparison only.
CORE := $(filter-out $(wildcard ddlib/study/*.py ddlib/disk/*.py),$(wildcard ddlib/*.py ddlib/*/*.py)) ddlib/study/run.py
COMPUTING := constraints.txt params/smoke.yaml $(CORE)
READERS := $(filter-out ddlib/study/run.py,$(wildcard ddlib/study/*.py))

# Many small runs side by side: one thread each. The PTMs they share are trained once.
execute = OMP_NUM_THREADS=1 DDLIB_RUNS="$(CURDIR)/$(SMOKE)" DDLIB_CACHE="$(CURDIR)/$(SMOKE)/ptms" \
	$(BIN)/python workflow/execute.py notebooks/$(1).ipynb $@
arm = $(call execute,$(1)) -f params/smoke.yaml

.PHONY: help
help:  ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

# --- environment ------------------------------------------------------------------------------------------

.PHONY: env
env: $(READY)  ## Set up .venv with the exact versions of constraints.txt

# pip reads its own configuration as always, and keeps a torch that is already in .venv (a CPU-only one, say).
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python {v[0]}.{v[1]} found, 3.11 or newer needed: make PYTHON=python3.12 ...")'
	@echo "Setting up .venv: minutes the first time, and about 6 GB with the CUDA build of torch"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[notebooks,book,sweeps,dev]"
	@touch $@

.PHONY: constraints
constraints: $(READY)  ## Bring constraints.txt up to date with pyproject.toml
	UV_CUSTOM_COMPILE_COMMAND="make constraints" $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--fork-strategy fewest --no-annotate --all-extras --output-file constraints.txt pyproject.toml

.PHONY: lab
lab: $(READY)  ## Open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

# --- notebooks and book -----------------------------------------------------------------------------------

.PHONY: book
book: $(READY)  ## Execute the notebooks at smoke scale and build the book; SWEEP=name: with that comparison
	@$(MAKE) --no-print-directory -j$(JOBS) $(PAGES)
	@# A failed build forgets what it read: otherwise the next one would skip those pages, and their warnings.
	@$(BIN)/jupyter-book build -q -W -n --keep-going book || { rm -rf book/_build/.doctrees; exit 1; }
	@echo "The book: $(CURDIR)/book/_build/html/index.html"

.PHONY: run
run: $(READY)  ## Execute the notebooks at smoke scale
	@$(MAKE) --no-print-directory -j$(JOBS) $(COMPARISON) $(COSTS)

# Records of an older state must not reach the comparison: a change removes those of the notebook it concerns.
$(SMOKE)/%.fresh: notebooks/%.ipynb $(COMPUTING)
	@mkdir -p $(SMOKE) && rm -f $(SMOKE)/$*-* && touch $@

$(TOUR): $(SMOKE)/00_tour.fresh
	@$(call execute,00_tour)

$(GUIDED): $(EXECUTED)/01_guidance-%.ipynb: $(SMOKE)/01_guidance.fresh
	@$(call arm,01_guidance) -p guidance $*

$(BASES): $(EXECUTED)/01_baseline-%.ipynb: $(SMOKE)/01_guidance.fresh
	@$(call arm,01_guidance) -p guidance none -p base_method $*

$(ENSEMBLES): $(EXECUTED)/02_ensemble-%.ipynb: $(SMOKE)/02_ensemble.fresh
	@$(call arm,02_ensemble) -p strategy $*

$(EQUAL_PASSES): $(EXECUTED)/02_equal_passes-%.ipynb: $(SMOKE)/02_ensemble.fresh
	@$(call arm,02_ensemble) -p strategy $* -p equal_passes True

$(COMPARISON): notebooks/03_compare.ipynb $(READERS) $(TOUR) $(GUIDED) $(BASES) $(ENSEMBLES) $(EQUAL_PASSES)
	@$(call execute,03_compare)

$(COSTS): notebooks/04_costs.ipynb $(READERS) $(wildcard benchmarks/results/*.json)
	@$(call execute,04_costs)

# One run of each notebook becomes a page; of the comparison, that of the smoke runs or of SWEEP, a folder in runs/sweeps.
SWEEP ?=
COMPARED := $(if $(SWEEP),runs/sweeps/$(SWEEP)/notebooks/03_compare.ipynb,$(COMPARISON))

book/executed/03_compare.ipynb: $(COMPARED) book/executed/.compared-$(if $(SWEEP),sweep-$(SWEEP),smoke)
book/executed/.compared-%:
	@mkdir -p book/executed && rm -f book/executed/.compared-* && touch $@

book/executed/01_guidance.ipynb: $(EXECUTED)/01_guidance-clom.ipynb
book/executed/02_ensemble.ipynb: $(EXECUTED)/02_ensemble-loss_avg.ipynb
book/executed/00_tour.ipynb book/executed/04_costs.ipynb: book/executed/%.ipynb: $(EXECUTED)/%.ipynb
$(PAGES): book/fold.py
	@$(BIN)/python book/fold.py $(filter runs/%,$^) $@

.PHONY: bench
bench: $(READY)  ## Measure the speed of ddlib (ten minutes on 2 cores), on the GPU where there is one
	$(BIN)/python -m benchmarks

.PHONY: published
published: $(READY)  ## Run the published baselines at the paper's scale (days on a CPU), or go on with them
	$(BIN)/python -m benchmarks.published

# --- sweeps -----------------------------------------------------------------------------------------------

GRID ?= params/sweeps/smoke.yaml
OPTIONS ?=

.PHONY: sweep
sweep: $(READY)  ## Run all jobs of GRID=params/sweeps/smoke.yaml, or go on with them; OPTIONS go to Snakemake
	$(BIN)/python workflow/sweep.py $(GRID) $(OPTIONS)

.PHONY: plan
plan: $(READY)  ## Say what `make sweep` would do, why, and how long it would take
	@$(BIN)/python workflow/sweep.py $(GRID) --dry-run $(OPTIONS)

.PHONY: progress
progress: $(READY)  ## Say how far the sweep of GRID is
	@$(BIN)/python workflow/sweep.py $(GRID) --status $(OPTIONS)

# --- checks -----------------------------------------------------------------------------------------------

.PHONY: test
test: lint  ## Run all checks: style, tests with coverage, the book, the notebooks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --cov --ignore=tests/test_book.py
	@$(MAKE) --no-print-directory book
	DDLIB_RUNS="$(CURDIR)/$(SMOKE)" DDLIB_CACHE="$(CURDIR)/$(SMOKE)/ptms" \
		$(BIN)/python -m pytest --nbval-lax tests/test_book.py notebooks

.PHONY: lint
lint: $(READY)  ## Check style and security of code and notebooks, in seconds
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/nbstripout --keep-count --verify notebooks/*.ipynb
	$(BIN)/lint-imports --no-logo
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive ddlib workflow benchmarks book/*.py book/_ext

.PHONY: audit
audit: $(READY)  ## Ask the vulnerability database about every pinned package (needs the network)
	$(BIN)/uv tool run pip-audit -r constraints.txt --no-deps --disable-pip

.PHONY: format
format: $(READY)  ## Format code and notebooks, and strip the notebooks' outputs
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/nbstripout --keep-count notebooks/*.ipynb

.PHONY: clean
clean:  ## Remove the book and the smoke runs; .venv and other records stay
	rm -rf book/_build book/executed $(SMOKE) .pytest_cache .ruff_cache .hypothesis .coverage
