# make train   makes .venv, installs gpucnn with its extras, trains on what data there is, and ends with the test accuracy
# make test    makes .venv, installs what the tests need, and runs all of them: kernels on the virtual GPU and in Numba's simulator
# make slow    what make test leaves out: every kernel compiled for every chip, long runs, Numba's simulator; some half an hour
# make mutants changes the operations and what is around them a little at a time, and runs the tests that should notice (docs/mutation.md)
# make conditions   tests under a newcomer's conditions: no home folder, a read-only one, umask 077, LANG=C, one core, signals ignored, …
# make mlir    the kernels' tests through numba-cuda-mlir, a part of make slow
# make lint    ruff, mypy, clang-format, and proselint with a word list of our own on the documents and messages
# make wheel   builds a wheel and an sdist into dist/; GPUCNN_REPOSITORY=https://… puts the repository's address into them
# make clean   removes .venv and all caches; runs/ stays
#
# PYTHON=python3.12 make test picks another Python; ARGS="--model lenet5x5" goes to gpucnn train.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: train test slow conditions mlir vgpu-numba mutants lint wheel clean
.DEFAULT_GOAL := test

train: $(VENV)/.installed
	$(BIN)/gpucnn train $(ARGS)

PYTEST := $(BIN)/python -m pytest -q -n auto --dist worksteal
# Tests that start programs wait for them: one process more than there are cores.
MORE := PYTEST_XDIST_AUTO_NUM_WORKERS=$$($(BIN)/python -c 'import os; print(os.cpu_count() + 1)')
SIMULATED := NUMBA_ENABLE_CUDASIM=1 $(PYTEST)
VGPU := tests/vgpu/vgpu-run
# Kernels made for one shape take seconds to compile. The virtual GPU has some of their shapes, the simulator all.
SHAPES := $(patsubst %,tests/kernels/simulator/test_%.py,direct direct_input_grad depthwise fused fused_grad engine_dense ops_choose)
# Tests of many kernels come first: at the end the processes should have short ones left to share.
KERNELS := tests/examples/test_examples_on_gpu.py tests/kernels/gpu tests/vgpu tests/kernels/simulator
export VGPU_CACHE ?= $(CURDIR)/.cache/vgpu
# The tests use this folder too: without a writable home folder, each command would otherwise say that nothing is cached.
test slow: export GPUCNN_LOOP_CACHE ?= $(CURDIR)/.cache/loops
# The tests start hundreds of processes. Where Python keeps no bytecode, as in many containers, each would compile the package again.
test slow: export PYTHONDONTWRITEBYTECODE =
# The compilers' reports on kernels for each chip; make slow compiles them again.
test: export GPUCNN_COMPILED_CACHE ?= $(CURDIR)/.cache/compiled
# Kernels run there as PTX: machine code would take a third of the time, and tests/kernels/compiler compiles it for each chip.
test: export VGPU_MACHINE_CODE ?= 0
# There they lie as Numba has made them, for an H100. Half of what tests/kernels/compiler compiles are the same, and are taken from there.
test: export GPUCNN_LAUNCHED_KERNELS ?= $(VGPU_CACHE)/numba-ptx

test: $(VENV)/.installed-dev
	@if gpu=$$($(VGPU) --check $(BIN)/python); then \
		echo "── kernels launched through CuPy on the virtual GPU of tests/vgpu ($$gpu): on two cores 3 to 8 minutes the first time, then less"; \
		$(VGPU) $(PYTEST) -m "not slow" $(KERNELS) && \
		echo "── kernels made for a shape, on all shapes, under Numba's CUDA simulator" && \
		$(SIMULATED) -m "not slow" $(SHAPES); \
	else \
		echo "── kernels under Numba's CUDA simulator: $$gpu"; \
		$(SIMULATED) -m "not slow" tests/kernels/simulator; \
	fi
	@echo "── everything else: library, data, command line, kernels through the compiler (and on a GPU, where there is one): 5 to 10 minutes"
	$(MORE) $(PYTEST) -m "not slow" --ignore=tests/kernels/simulator

slow: $(VENV)/.installed-dev
	@if gpu=$$($(VGPU) --check $(BIN)/python); then \
		echo "── the long tail on the virtual GPU ($$gpu)"; \
		$(VGPU) $(PYTEST) -m slow $(KERNELS); \
	else \
		echo "── not on the virtual GPU: $$gpu"; \
	fi
	@echo "── a second opinion on the kernels: Numba's CUDA simulator"
	$(SIMULATED) tests/kernels/simulator
	$(PYTEST) -m slow --ignore=tests/kernels/simulator
	@echo "── Numba's successor, numba-cuda-mlir, on the virtual GPU"
	$(MAKE) mlir

# Numba's successor for CUDA, in a folder of its own: a list of the kernel tests that pass when it compiles the kernels, not a verdict.
# What is known to fail, and why: tests/vgpu/mlir_known.txt.
mlir: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .cache/mlir numba-cuda-mlir==0.6.0
	-GPUCNN_TOOLCHAIN=mlir PYTHONPATH=.cache/mlir $(VGPU) $(PYTEST) -m "not slow" tests/kernels/simulator

# numba-cuda's own tests: if one fails that tests/vgpu/numba_known.txt does not list, the virtual GPU is wrong.
vgpu-numba: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check filecheck ml_dtypes cffi
	$(VGPU) $(BIN)/python tests/vgpu/numba_suite.py $(ARGS)

# ARGS="--all" for all mutants and no samples, ARGS="gpucnn/losses.py" for those of one module.
mutants: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "cosmic-ray>=8.4,<9"
	$(BIN)/python -W ignore tests/mutants.py $(ARGS)

# CONDITIONS="umask locale" for these alone, TESTS="tests/cli" for other tests than those on files and signals.
conditions: $(VENV)/.installed-dev
	PYTHON=$(BIN)/python tests/conditions.sh $(CONDITIONS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/lint_prose.py
	$(BIN)/clang-format --dry-run --Werror $$(find tests/vgpu/src -type f)

wheel: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "build>=1.2"
	$(BIN)/python -m build --outdir dist .
	@ls dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gpucnn needs Python 3.11 or newer: PYTHON=python3.x make ..."; exit 2; }
	@echo "── making an environment in $(VENV)"
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no environment could be made: on Debian and Ubuntu, apt install python3-venv"; exit 2; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "── installing gpucnn and its extras"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[digits,images,plot]"
	@touch $@

# pip learned to read dependency groups in version 25.1.
$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "── installing what the tests need"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

clean:
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
