# make demo: the main job, from nothing.  make test: all tests.  Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check format docs clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make demo PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,local,web,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt KrovetzStemmer \
	  || echo "no C++ compiler: local_vespa will stem English by plural rules only, not as Vespa does"
	touch $@

# KEEP=1 leaves the engine and the search page running.
demo: setup
	$(BIN)/mrse demo $(if $(KEEP),--keep)

# One process a core; the engine's and the trainer's own threads are few.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as a site in build/site; a broken link fails.
docs: setup
	$(BIN)/mkdocs build --quiet

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
