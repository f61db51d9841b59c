# `make book` and `make test` are all a newcomer needs; `make` alone lists the rest.
# The environment lives in .venv, and `make book` writes in runs/ and book/ alone. Sweeps and `make reproduce` keep PTMs,
# and data sets that are downloaded, in the user's cache, or where DDLIB_CACHE and DDLIB_DATA say.

PYTHON ?= python3
JOBS ?= 2

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

BIN := .venv/bin
READY := .venv/ready
CODE := ddlib tests notebooks book benchmarks workflow

# Notebooks that are pages: of the sweep of this grid, and two that no sweep runs. Small runs side by side: one thread each.
SMOKE := params/sweeps/smoke.yaml
SWEPT := runs/sweeps/smoke
INSIDE := OMP_NUM_THREADS=1 DDLIB_RUNS="$(CURDIR)/runs" DDLIB_CACHE="$(CURDIR)/runs/ptms"
TOUR := runs/book/00_tour.ipynb
COSTS := runs/book/04_costs.ipynb
HTML := book/_build/html/index.html

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

SWEEP ?= smoke

.PHONY: book
book: $(READY)  ## Run the smoke sweep and build the book; SWEEP=name: with the comparison of runs/sweeps/name
	@$(MAKE) --no-print-directory -j3 swept $(TOUR) $(COSTS)
	@$(BIN)/python book/fold.py $(SWEPT)/plan/plan.json $(TOUR) runs/sweeps/$(SWEEP)/notebooks/03_compare.ipynb $(COSTS)
	@$(MAKE) --no-print-directory $(HTML)
	@echo "The book: $(CURDIR)/$(HTML)"

# A failed build forgets what it read: otherwise the next one would skip those pages, and their warnings.
$(HTML): $(filter-out book/_build/%,$(wildcard book/*.* book/*/*.* book/*/*/*.*)) $(wildcard ddlib/*.py ddlib/*/*.py) \
		$(wildcard params/*.yaml params/sweeps/* workflow/*.py workflow/profiles/*/* $(SWEPT)/*.json) constraints.txt \
		$(wildcard $(addprefix book/results/sweeps/,*/*.json */*.png */snapshots/*/*.png))
	@$(BIN)/jupyter-book build -q -W -n --keep-going book || { rm -rf book/_build/.doctrees; exit 1; }
	@touch $@

# Arms run side by side in a few processes; those that the book shows run as notebooks.
.PHONY: swept
swept: $(READY)  ## Run the smoke sweep, whose notebooks are pages
	@$(INSIDE) $(BIN)/python workflow/sweep.py $(SMOKE) --in-process --notebooks --jobs $(JOBS)

# The tour computes, so it is run again when the core changes; the page on costs reads what `make bench` wrote.
$(TOUR): notebooks/00_tour.ipynb constraints.txt $(filter-out $(wildcard ddlib/study/* ddlib/disk/*),$(wildcard ddlib/*.py ddlib/*/*.py))
$(COSTS): notebooks/04_costs.ipynb $(wildcard ddlib/study/*.py benchmarks/results/*.json benchmarks/results/*/*.json)
$(TOUR) $(COSTS): runs/book/%.ipynb: notebooks/%.ipynb
	@$(INSIDE) $(BIN)/python workflow/execute.py $< $@

.PHONY: bench
bench: $(READY)  ## Measure the speed of ddlib (twenty minutes on 2 cores, 15 GB), on the GPU where there is one
	$(BIN)/python -m benchmarks

# --- sweeps -----------------------------------------------------------------------------------------------

GRID ?= $(SMOKE)
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

.PHONY: published
published: $(READY)  ## Run the published baselines at the paper's scale (days on a CPU), or go on with them
	$(BIN)/python workflow/sweep.py params/sweeps/published.yaml $(OPTIONS)

# --- the study --------------------------------------------------------------------------------------------

# desk-elsewhere joins them once the alphas that desk-elsewhere-alpha chooses stand in it.
STUDY ?= $(foreach part,alpha ensemble-alpha guidance ensemble ensemble-own elsewhere-alpha options,params/sweeps/desk-$(part).yaml)
SEED ?=

.PHONY: study
study: $(READY)  ## Run what book/results lacks of the study (days on 2 cores), or go on with it
	OMP_NUM_THREADS=1 $(BIN)/python workflow/study.py $(STUDY) --jobs $(JOBS)

.PHONY: reproduce
reproduce: $(READY)  ## Run ARM="clom" of the study again with a SEED that is kept, and compare
	$(BIN)/python workflow/reproduce.py "$(ARM)" $(if $(SEED),--seed $(SEED)) $(if $(IN),--grid $(IN))

# --- checks -----------------------------------------------------------------------------------------------

.PHONY: test
test: lint  ## Run all checks: style, tests, the book, the notebooks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(COVERAGE) --ignore=tests/test_book.py --ignore=tests/test_browser.py
	@$(MAKE) --no-print-directory book
	@rm -rf runs/nbval && mkdir -p runs/nbval && cp $(SWEPT)/*.json $(SWEPT)/*.safetensors runs/nbval  # for the comparison
	$(INSIDE) DDLIB_RUNS="$(CURDIR)/runs/nbval" $(BIN)/python -m pytest -n 2 --dist loadfile --nbval-lax tests/test_book.py tests/test_browser.py notebooks

.PHONY: coverage
coverage: COVERAGE := --cov
coverage: test  ## The same, and say which lines no test runs

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
	rm -rf book/_build book/executed $(SWEPT) runs/book runs/nbval runs/ptms .pytest_cache .ruff_cache .hypothesis .coverage
