# Every target makes .venv by itself; nothing has to be installed beforehand but Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Threads that spin while they wait slow two processes on two cores down five-fold and more.
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test lint bench chaos notebooks clean

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

demo: $(VENV)/installed  ## teacher, student, comparison on miniature data, in about four minutes
	HF_HUB_OFFLINE=1 $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		pipelines/distill.py --config configs/demo.yaml

test: $(VENV)/installed  ## all tests that this machine can run
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --timeout 300 -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed  ## style, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed  ## speed as ratios measured in one run, written to runs/bench
	# performer-pytorch is measured, not used; it lists packages that its attention does not import
	$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['bench'])" \
		| xargs $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
	OMP_WAIT_POLICY=ACTIVE $(BIN)/python pipelines/bench_kernels.py

chaos: $(VENV)/installed  ## fifty runs killed at random moments, each started again and compared with an undisturbed one
	$(BIN)/python tests/chaos.py --output runs/chaos.json

notebooks: $(VENV)/installed  ## execute the notebooks on the demo run, or on RUN=../runs/<another>; nothing is written
	HF_HUB_OFFLINE=1 $(BIN)/jupyter-execute notebooks/*.ipynb

clean:  ## remove the environment and caches, not the runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
