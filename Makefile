# Names are the dependency graph: notebook NN_topic writes runs/<slug>/NN_topic/manifest.json.
# Works with make 3.81 and with -j2.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := help

MODELS ?= tiny-llama tiny-gemma2 tiny-mistral tiny-phi3 tiny-qwen2 tiny-qwen3
export TOKENIZERS_PARALLELISM ?= false
# Work goes through src/ also when PYTHON= names an environment of your own.
export PYTHONPATH := $(CURDIR)/src$(if $(PYTHONPATH),:$(PYTHONPATH))

ifdef PYTHON
ENV :=
else
PYTHON := .venv/bin/python
ENV := .venv/.ready
endif
BASE_PYTHON ?= $(shell command -v python3.11 || command -v python3)

# What each stage imports; touching figures or tables never runs a model again.
FLOOR0 := $(addprefix src/llmva/,errors.py paths.py params.py store.py provenance.py)
FLOOR2 := $(FLOOR0) $(addprefix src/llmva/,activations.py models.py prompts.py generation.py degeneracy.py judges.py examination.py metrics.py study.py stages.py readers.py results.py records.py)
FLOOR3 := $(FLOOR2) $(addprefix src/llmva/,svm.py vectors.py layers.py edits.py alignment.py)
FLOOR5 := $(FLOOR3) $(wildcard src/llmva/steering/*.py) src/llmva/utility.py src/llmva/statistics.py
ORGANISM := $(FLOOR0) $(wildcard src/llmva/organisms/*.py)

execute = $(PYTHON) -m llmva.execute $(1) $(2)
manifests = $(MODELS:%=runs/%/$(1)/manifest.json)

.PHONY: help env organisms tables figures all step align bench test lint notebooks clean
.PHONY: table2 table3 figure1 figure2 figure3 figure9 figure10

help: ## this text
	@echo "make <target> [MODELS='tiny-llama tiny-qwen2-s1'] [PYTHON=path/to/python]"
	@echo "Costs: two CPU cores, nothing cached; a second run takes seconds."
	@grep -hE '^[a-z0-9-]+( [a-z0-9-]+)*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-28s %s\n", $$1, $$2}'

env: $(ENV) ## make .venv with the pinned packages (3 min; needs Python 3.11 or newer)

.venv/.ready: pyproject.toml constraints.txt
	@echo "making .venv with the packages of constraints.txt (about 3 minutes)"
	$(BASE_PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

# Always asked, since only the library sees whether a file was damaged.
organisms: $(ENV) ## train the tiny models and their guard (2.5 min each), with a table
	$(PYTHON) -m llmva.organisms $(MODELS)
	$(PYTHON) -m llmva.organism_report $(MODELS)

runs/%/organism/manifest.json: $(ORGANISM) | $(ENV)
	$(PYTHON) -m llmva.organisms $*
	@touch $@

runs/%/00_start_here/manifest.json: notebooks/00_start_here.ipynb $(FLOOR2) | $(ENV)
	$(call execute,00,$*)
runs/%/01_orthogonality/manifest.json: notebooks/01_orthogonality.ipynb runs/%/00_start_here/manifest.json $(FLOOR3)
	$(call execute,01,$*)
runs/%/02_svm_identification/manifest.json: notebooks/02_svm_identification.ipynb runs/%/01_orthogonality/manifest.json
	$(call execute,02,$*)
runs/%/03_layer_selection/manifest.json: notebooks/03_layer_selection.ipynb runs/%/01_orthogonality/manifest.json
	$(call execute,03,$*)
runs/%/04_alignment_loop/manifest.json: notebooks/04_alignment_loop.ipynb runs/%/03_layer_selection/manifest.json
	$(call execute,04,$*)
runs/%/05_main_results/manifest.json: notebooks/05_main_results.ipynb runs/%/04_alignment_loop/manifest.json $(FLOOR5)
	$(call execute,05,$*)

# Parameter files; a seeded slug (tiny-llama-s1) uses its base's. Organisms need training first, real models do not.
parameter_file = $(firstword $(wildcard papermill_params/$(1).yaml) papermill_params/$(shell echo $(1) | sed -E 's/-s[0-9]+$$//').yaml)
$(foreach m,$(MODELS),$(eval runs/$(m)/00_start_here/manifest.json: $(call parameter_file,$(m))))
$(foreach m,$(filter tiny-%,$(MODELS)),$(eval runs/$(m)/00_start_here/manifest.json: runs/$(m)/organism/manifest.json runs/tiny-guard/organism/manifest.json))
# A slug without a parameter file gets the library's one clear line instead of Make's.
papermill_params/%.yaml: | $(ENV)
	@$(PYTHON) -m llmva.params $*

table2: $(call manifests,05_main_results) ## Table 2: both failures, F1, intervals (6 min per model)
table3: $(call manifests,03_layer_selection) ## Table 3: L_select (4 min per model)
figure1 figure9: $(call manifests,01_orthogonality) ## Figures 1, 9: angles and their null (3 min per model)
figure2: $(call manifests,02_svm_identification) ## Figure 2: projections (3 min per model)
figure3: $(call manifests,04_alignment_loop) ## Figure 3: the plane of both decisions (5 min per model)
figure10: $(call manifests,03_layer_selection) ## Figure 10: scores of the sublayers (4 min per model)

table2 table3:
	@$(PYTHON) -m llmva.tables $@ --models $(MODELS)
figure1 figure2 figure3 figure9 figure10:
	@$(PYTHON) -m llmva.figures $@ --models $(MODELS)

tables: $(ENV) ## all tables from the tracked results/ alone (10 s)
	$(PYTHON) -m llmva.tables all --models $(MODELS)
figures: $(ENV) ## all figures from the tracked results/ alone (60 s)
	$(PYTHON) -m llmva.figures all --models $(MODELS)

all: $(call manifests,02_svm_identification) $(call manifests,05_main_results) ## every table and figure (7 min per model)
	$(MAKE) tables figures MODELS='$(MODELS)'

step: $(ENV) ## NB=05 MODEL=tiny-llama: a copy of a notebook with that model's parameters, to step through
	@$(PYTHON) -m llmva.execute $(or $(NB),00) $(or $(MODEL),tiny-llama) --prepare-only

align: $(ENV) ## MODEL=<folder> [DATA=<csv>] [OUT=<folder>]: align a model of your own
	@$(PYTHON) -m llmva.align $(if $(MODEL),--model '$(MODEL)') $(if $(DATA),--data '$(DATA)') $(if $(OUT),--out '$(OUT)') $(ALIGN_OPTIONS)

bench: $(ENV) runs/tiny-llama/05_main_results/manifest.json ## solver and loop against plain references; tables/performance.csv (5 min)
	$(PYTHON) -m llmva.benchmark_loop

lint: $(ENV)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

# Nothing here writes to results/, tables/ or figures/: LLMVA_OUT points into build/.
test: lint runs/tiny-llama/organism/manifest.json runs/tiny-guard/organism/manifest.json ## lint, unit tests, notebooks on tiny-llama (10 min)
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest tests
	rm -rf build/nbval && mkdir -p build/nbval && cp -R results build/nbval/results
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 LLMVA_OUT=$(CURDIR)/build/nbval \
	  $(PYTHON) -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 900 notebooks

notebooks: $(ENV) runs/tiny-llama/organism/manifest.json runs/tiny-guard/organism/manifest.json ## run the tracked notebooks in place, on tiny-llama
	for n in notebooks/*.ipynb; do TQDM_DISABLE=1 $(PYTHON) -m llmva.execute $$(basename $$n) --in-place || exit; done

clean: ## remove build/ and caches; never runs/ or results/
	rm -rf build .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -exec rm -rf {} +
