# make quickstart   set-up, sample data, a small training run, its ablation and predictions
# make test         set-up and all tests but the slow ones        make test-all   those too
# make test-matrix  the slow ones of the launches: 20 random kills per strategy, every strategy x architecture, machines
# make test-fuzz    20,000 damaged files over all readers: each a value or one sentence
# make test-gpu     the tests on a GPU     make test-gpu REHEARSE=1   what of them can run on the CPU
# make test-old     set-up of .venv-old (Python 3.12, 3 GB) and tests with the oldest versions: launchers/gpu/machine.txt
# make bench        set-up and all measurements of speed: docs/performance.md
# make docs         the pages of docs/ as a site in runs/site; a broken link is an error
# make lint         ruff's checks and format, mypy's types         make format     repairs what it can
# make venv         set-up only: .venv with requirements.txt
# `make venv PYTHON=/path/to/python` chooses the Python; .venv is made anew only where it does not work.

PYTHON ?= $(shell python3.11 -c "" 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
OLD := .venv-old
OLD_PYTHON ?= python3.12
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(if $(CI),--quiet)
# One process: on the GPU where there is one, else on the CPU.
LAUNCH := $(BIN)/accelerate launch --quiet --config_file accelerate_configs/single_gpu.yaml
SAMPLE := data/sample
RUN := runs/quickstart
# Three files of tests at once: they wait for programs half of the time; each takes some 3 GB.
AT_ONCE := -n 3 --dist loadfile --no-loadscope-reorder
# DeepSpeed compiles these at its first start, on all cores for a minute; here once, before tests wait for it in turn.
EXTENSIONS := CPUAdamBuilder ShareMemCommBuilder

.DELETE_ON_ERROR:
.PHONY: help venv dev quickstart extensions test test-all test-matrix test-fuzz test-gpu test-old bench docs lint format

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

venv: $(VENV)/.installed
dev: $(VENV)/.installed-dev

# The check is on the environment's own Python: it may have been made by hand, by another version, or only half.
$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
	    echo "error: $(PYTHON) is no Python 3.11 or newer. Install one (Debian: apt install python3.11 python3.11-venv)," \
	        "or name one: make venv PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(BIN)/python -c "import pip, sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || \
	    $(PYTHON) -m venv --clear $(VENV)
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

$(SAMPLE)/train.txt: data_utils/sample.py | $(VENV)/.installed
	$(BIN)/python -m data_utils.sample --output_dir $(SAMPLE)

quickstart: venv $(SAMPLE)/train.txt
	$(LAUNCH) train.py --config configs/quickstart.yaml
	$(LAUNCH) evaluate.py $(RUN) --ablation
	$(LAUNCH) evaluate.py $(RUN) --predict $(SAMPLE)/test_without_label.txt --output $(RUN)/predictions.txt
	@echo
	@echo "Done. Everything lies in $(RUN):"
	@echo "  metrics.json       accuracy, F1, intervals, parameters, time"
	@echo "  ablation.json      the same with the text or the picture alone"
	@echo "  predictions.txt    answers for $(SAMPLE)/test_without_label.txt"
	@echo "  model/             the trained model"

extensions: dev $(VENV)/.extensions

$(VENV)/.extensions: $(VENV)/.installed-dev
	@! command -v g++ > /dev/null || if $(BIN)/python -c "import sys; from deepspeed.accelerator import get_accelerator; \
	    [get_accelerator().create_op_builder(name).load(verbose=False) for name in sys.argv[1:]]" $(EXTENSIONS) \
	    > /dev/null 2>&1; then touch $@; \
	    else echo "error: DeepSpeed's extensions can't be compiled; its tests will say why" >&2; fi

test: extensions
	$(BIN)/python -m pytest $(AT_ONCE)

test-all: extensions
	$(BIN)/python -m pytest $(AT_ONCE) -m ""

test-matrix: extensions
	$(BIN)/python -m pytest -m slow -s tests/launches

test-fuzz: dev
	$(BIN)/python -m pytest -m fuzz tests/sources/test_fuzz.py

test-gpu: dev
	$(BIN)/python -m pytest -m gpu -rs --durations=10 tests/gpu

$(OLD)/.installed: launchers/gpu/machine.txt launchers/gpu/missing.txt
	$(OLD_PYTHON) -m venv --clear $(OLD)
	$(OLD)/bin/python -m pip install --disable-pip-version-check -r launchers/gpu/machine.txt
	$(OLD)/bin/python -m pip install --disable-pip-version-check --no-deps -r launchers/gpu/missing.txt
	@touch $@

test-old: $(OLD)/.installed
	$(OLD)/bin/python -m pytest $(or $(TESTS),tests/*/test_features.py tests/*/test_fsdp.py tests/*/test_modeling_*.py \
	    tests/*/test_evaluation_*.py tests/*/test_sweep.py tests/*/test_train*.py)

bench: venv
	$(BIN)/python -m benchmarks

docs: dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

lint: dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
