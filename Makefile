# make demo    the main job, live: replicas and upstreams are killed, nothing is lost
# make test    every test, against real servers
# make check   lint, format, types
# make bench   compare with peers, as ratios
# Each builds .venv by itself when it is missing; PYTHON=python3.13 chooses the interpreter.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TESTS  ?= tests

.PHONY: demo test check format bench conformance clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: $(READY)
	@$(BIN)/python examples/demo.py $(if $(STORE),--store '$(STORE)')

test: $(READY)
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(TESTS) $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

conformance: $(READY)
	@$(BIN)/python tests/conformance.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
