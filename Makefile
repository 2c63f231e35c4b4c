PYTHON ?= python3
BIN := .venv/bin
QUICK := tests/test_arguments.py tests/test_records.py tests/test_floors.py tests/test_layers.py tests/test_public_names.py \
  tests/checkpoint/test_checkpoint.py tests/test_supports.py tests/theory/test_overlap.py tests/theory/test_paper.py \
  tests/theory/test_compression.py tests/theory/test_table1.py tests/theory/test_counting.py

.PHONY: figures test long quick attack lint package release bench clean

figures: .venv/.installed  ## train what is missing, draw every figure and table into ./figures
	$(BIN)/topobounds figures

test: .venv/.installed  ## the tests, but for those that are long
	$(BIN)/pytest -n auto --dist worksteal

long: .venv/.installed  ## the others: trainings, clusters, killed processes
	$(BIN)/pytest -m long -n auto --dist worksteal

quick: .venv/.installed  ## half a minute of tests, for while you work
	$(BIN)/pytest -n auto $(QUICK)

attack: .venv/.installed  ## what is killed, fuzzed, changed and flooded over and over: not a part of CI
	$(BIN)/pip install --disable-pip-version-check --no-compile -e '.[attack]'
	$(BIN)/pytest -m attack

lint: .venv/.installed  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

package: .venv/.installed  ## wheel and source distribution: what is in them, and their use without any extra
	$(BIN)/nox -s package

release: long  ## what a release has to pass beyond the tests
	$(BIN)/nox

bench: .venv/.installed  ## the benchmarks, with their peers
	$(BIN)/pip install -e '.[bench]'
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv .nox figures

.venv/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "topobounds needs Python 3.11 or newer: make PYTHON=python3.11")'
	@echo "Making .venv and installing topobounds with torch and its tools into it: a minute or more, this once."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --no-compile -e '.[dev]'
	@echo "Installed."
	touch $@
