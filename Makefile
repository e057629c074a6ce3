# Two commands matter: `make run` (everything, on a fresh machine) and `make test`.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# A virtual environment names its own place in its scripts, and keeps its interpreter: where the checkout was moved, or
# another PYTHON is asked for, it is made anew.
ifneq ($(wildcard $(VENV)/.installed),)
  ifneq ($(shell cat $(VENV)/.installed),$(CURDIR))
    $(shell rm -rf $(VENV))
  else ifneq ($(origin PYTHON),file)
    VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
    WANTED := $(shell $(PYTHON) $(VERSION))
    ifneq ($(shell $(BIN)/python $(VERSION)),$(or $(WANTED),$(shell $(BIN)/python $(VERSION))))
      $(shell rm -rf $(VENV))
    endif
  endif
endif
# Where this is set, as in many containers, every process compiles all it imports anew: 19 s for DeepSpeed, in place of 6.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install run test test-all check lock bench bench-data bench-model bench-train bench-structure bench-rollout clean help

help:
	@echo "make run    install into .venv, then text -> served, watched model (ARGS='profile=tiny key=value')"
	@echo "make install  into .venv, and run nothing"
	@echo "make test   install into .venv, then the tests of every package: unit and process"
	@echo "make test-all  the same and the matrix: every training combination, every compiled architecture, benchmarks' tests"
	@echo "make check  ruff, mypy, import-linter"
	@echo "make bench  run a fresh clone twice, its tests, and its peers; writes docs/benchmarks.md"
	@echo "make bench-data  compare data refining with stock datatrove blocks; writes docs/data.md (ARGS=--full adds 1 GB)"
	@echo "make bench-model  compare models with transformers; writes docs/model.md (ARGS=--quick for one shape)"
	@echo "make bench-train  measure training beside transformers' Trainer; writes docs/training.md (ARGS='--text input.txt')"
	@echo "make bench-structure  measure the code's structure; writes the table in docs/architecture.md"
	@echo "make bench-rollout  simulate how often a rollout decides wrongly; writes docs/release.md (ARGS='--rollouts 300')"
	@echo "make lock   resolve requirements.lock again from pyproject.toml"

install: $(VENV)/.installed

# A candidate that the gate holds or rejects ends the command with 3 or 4, which make shows as an error.
run: $(VENV)/.installed
	@$(BIN)/sluice run $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(ARGS)

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -m "" $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.lifecycle $(ARGS)

bench-model: $(VENV)/.installed
	$(BIN)/python -m benchmarks.model $(ARGS)

bench-data: $(VENV)/.installed
	$(BIN)/python -m benchmarks.data $(ARGS)

bench-train: $(VENV)/.installed
	$(BIN)/python -m benchmarks.training $(ARGS)

bench-structure: $(VENV)/.installed
	$(BIN)/python -m benchmarks.structure $(ARGS)

bench-rollout: $(VENV)/.installed
	$(BIN)/python -m benchmarks.rollout --table $(ARGS)

# The stamp is written last, so an interrupted install is done again rather than trusted.
$(VENV)/.installed: requirements.lock pyproject.toml infra/install.sh
	PYTHON=$(PYTHON) VENV=$(VENV) infra/install.sh
	@echo "$(CURDIR)" > $@

# CUDA wheels are left to torch's own pins: the lock must serve machines with and without a GPU.
lock: $(VENV)/.installed
	$(BIN)/uv pip compile --universal --python-version 3.11 --fork-strategy fewest --extra dev --extra cluster --extra eval --no-annotate \
	  $$(for name in triton cuda-bindings cuda-toolkit cuda-pathfinder nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
	    nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
	    nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx; do echo --no-emit-package $$name; done) \
	  --custom-compile-command "make lock" --quiet --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) artifacts metrics .sluice build
