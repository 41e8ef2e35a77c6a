# Two commands do all the set-up: `make quickstart` and `make test`. They need python3 (3.11 or newer), make and g++.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test test-soak test-gpu bench-train bench-kd bench-shapes lint lock clean

quickstart: $(READY)
	$(BIN)/distox quickstart

test: $(READY) lint
	$(BIN)/pytest -m "not soak and not gpu"

test-soak: $(READY)
	$(BIN)/pytest -m "soak and not gpu"

test-gpu: $(READY)
	$(BIN)/pytest -m gpu

bench-train: $(READY)
	$(BIN)/python -m tests.benchmarks.bench_train

bench-shapes: $(READY)
	$(BIN)/python -m tests.benchmarks.bench_shapes

# About an hour; goes on where it was when it is run again.
bench-kd: $(READY)
	$(BIN)/python -m tests.benchmarks.bench_kd

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The file says that the installation was finished: a broken one is made again.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "distox needs Python 3.11 or newer")'
	@command -v g++ > /dev/null || echo "warning: no g++; specs with 'deepspeed:' will be refused" >&2
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

# Writes the versions that are installed now; run it in an environment that was made on purpose.
lock:
	$(BIN)/python -m pip freeze --all --exclude-editable | grep -v "^pip==" | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) .distox .mypy_cache .ruff_cache .pytest_cache
