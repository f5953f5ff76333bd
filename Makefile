# Two commands: `make demo` runs both stages on the embedded default, `make test` the quick checks.
# `make test-all` runs every test with the types and axes of each call checked, and the slow trials:
# kills by the dozen, mounts, kernels, whole processes.
# Each creates the environment first if it is not there. PYTHON chooses the interpreter (3.10 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all check format bench bench-gpu faults fresh docs figures picture clean

demo: $(INSTALLED)
	$(BIN)/lsmprobe demo

test: check
	TYPES=trusted $(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow"

test-all: check
	tests/machines/trials.sh
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A small part of the probing grid, scaled up; all of it, on a GPU: make bench GRID=
GRID ?= --fraction 0.1 --epochs 1
bench: $(INSTALLED)
	mkdir -p benchmarks/results
	$(BIN)/python benchmarks/limits.py --json benchmarks/results/limits.json
	$(BIN)/python benchmarks/start_up.py --json benchmarks/results/start_up.json
	$(BIN)/python benchmarks/reading.py --json benchmarks/results/reading.json
	$(BIN)/python benchmarks/extraction.py --json benchmarks/results/extraction.json
	$(BIN)/python benchmarks/probing.py --json benchmarks/results/probing.json
	$(BIN)/python benchmarks/sizes.py --models wav2vec2-base whisper-small --json benchmarks/results/sizes.json
	$(BIN)/python benchmarks/scale.py --json benchmarks/results/scale.json
	$(BIN)/python benchmarks/parts.py --json benchmarks/results/parts.json
	$(BIN)/python benchmarks/workers.py --json benchmarks/results/workers.json
	$(BIN)/python benchmarks/threads.py --json benchmarks/results/threads.json
	$(BIN)/python benchmarks/first_epoch.py --json benchmarks/results/first_epoch.json
	$(BIN)/python benchmarks/beyond_memory.py --json benchmarks/results/beyond_memory.json
	$(BIN)/python benchmarks/intervals.py --json benchmarks/results/intervals.json
	$(BIN)/python benchmarks/stores.py --quick --json benchmarks/results/stores.json
	$(BIN)/python benchmarks/grid.py $(GRID) --json benchmarks/results/grid.json

# All of it on a GPU, in one call.
bench-gpu: $(INSTALLED)
	benchmarks/gpu.sh $(BIN)/python

# Every page and the documentation of every function, without a network: build/docs/index.html.
docs: $(INSTALLED)
	$(BIN)/python docs/website.py build/docs

# The figures of README and notebooks, of a folder of results and its caches; docs/figures.py says
# how both are made. Likewise the picture of the page in the README, which needs Chromium.
RESULTS ?= results
CACHES ?= cache
figures: $(INSTALLED)
	$(BIN)/python docs/figures.py $(RESULTS) $(CACHES) docs/figures

picture: $(INSTALLED)
	$(BIN)/python docs/page_picture.py $(RESULTS) $(CACHES) docs/figures/page.png

# Thousands of kills and damaged files; SEED repeats a run.
SEED ?= 1
faults: $(INSTALLED)
	$(BIN)/python tests/faults/harness.py --kills 2000 --flips 20000 --others 100 --seed $(SEED)

# A bare Debian, a clone, and the two commands; SUITE chooses the Debian, and so the Python.
SUITE ?= trixie
fresh:
	tests/machines/fresh.sh $(SUITE)

# A folder without the stamp is an install that was cut short: it is made anew.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else "lsmprobe needs Python 3.10 to 3.13; this is " + sys.version.split()[0] + ". Say: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
