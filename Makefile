# The two commands that matter: `make demo` and `make test`. Needs Python 3.11 or newer, and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt
DEMO := data/demo
DEMO_OUT := demo_out

# Modules are compiled when they are first imported: compiling all of them at installation takes longer than the rest of it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-long lint bench
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## make .venv with everything that development needs

# Two stamps: the demo waits for the runtime dependencies only.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed; name it with make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "installing the package into $(VENV)"
	@"$(PYTHON)" -m venv $(VENV)
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed: $(VENV)/.runtime
	@echo "installing the development tools into $(VENV)"
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@

# A cohort that was not written to its end is written again from the start.
$(DEMO)/.written: | $(VENV)/.runtime
	rm -rf $(DEMO)
	$(BIN)/vlm3d-ct phantom $(DEMO) --patients 1800 --slices 200 --seed 1
	@touch $@

demo: $(VENV)/.runtime $(DEMO)/.written  ## phantoms, pre-training, fine-tuning, retrieval, report: at most 10 minutes on 2 cores
	$(BIN)/vlm3d-ct prepare --config configs/demo_finetune.yaml
	$(BIN)/python training/train.py --config configs/demo_pretrain.yaml --output_dir $(DEMO_OUT)/pretrain
	$(BIN)/python training/train.py --config configs/demo_finetune.yaml --output_dir $(DEMO_OUT)/finetune \
		--resume $(DEMO_OUT)/pretrain/checkpoint_best.pth
	$(BIN)/python evaluation/retrieval.py --checkpoint $(DEMO_OUT)/finetune/checkpoint_best.pth \
		--data_dir $(DEMO)/ct_rate --output_dir $(DEMO_OUT)/retrieval \
		--stage pretrain=$(DEMO_OUT)/pretrain --stage finetune=$(DEMO_OUT)/finetune

test: $(VENV)/.installed  ## every test but the long ones: at most 10 minutes on 2 cores, no network, no GPU
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -m "not long"

test-long: $(VENV)/.installed  ## the long tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m long

lint: $(VENV)/.installed  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed  ## time and memory of encoder, evaluation, checkpoints and data on this machine
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/evaluation_speed.py
	$(BIN)/python benchmarks/checkpoint_pause.py
	$(BIN)/python benchmarks/loading_speed.py
	$(BIN)/python benchmarks/data_scale.py
	$(BIN)/python benchmarks/data_speed.py
