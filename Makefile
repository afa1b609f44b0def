# make demo | test | lint | format | bench | clean: each sets up .venv by itself, on a machine that has Python 3.11
# (with venv), make, and a C++ compiler for linking compiled networks.

PYTHON ?= python3
PYTEST_ARGS ?= -n auto
BENCH_ARGS ?= vgg16-cifar --timesteps 8 --density 0.1 --batch 1

BIN := .venv/bin
STAMP := .venv/.installed

# One thread per test process: pytest-xdist already fills the cores.
test: export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint format bench clean
.DEFAULT_GOAL := test

demo: $(STAMP)
	$(BIN)/ldsnn demo

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/ldsnn bench $(BENCH_ARGS)

clean:
	rm -rf .venv build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# SpikingJelly, snnTorch, Sinabs and Norse come without their dependencies, which are large (torchvision, torchaudio,
# tensorboard, ...) and of which the neurons, layers and encoders import only loguru and tqdm; Sinabs imports matplotlib,
# nirtorch and pbr, and asks for an older nir than ours, which it only needs for reading NIR files. Norse imports nirtorch.
$(STAMP): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt pip setuptools
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[test,dev,nir,bench,count,rpc]' loguru tqdm matplotlib pbr
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps spikingjelly snntorch nirtorch sinabs norse
	touch $@
