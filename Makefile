# make setup | demo | test | check | bench | clean. Everything is installed into .venv; nothing outside it.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed.stamp

.PHONY: setup demo test check bench clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -e .
	@touch $@

# Public data to a published, searchable version. Each line is a command that you can type yourself (source .venv/bin/activate).
demo: $(STAMP)
	$(BIN)/shortlist fetch movielens-1m --to demo/movielens-1m
	$(BIN)/shortlist check demo/movielens-1m/shortlist.toml
	$(BIN)/shortlist evaluate demo/movielens-1m/shortlist.toml --set evaluate.shifts=1 --out demo/evaluate
	$(BIN)/shortlist publish demo/evaluate/last --to demo/store
	$(BIN)/shortlist recommend demo/store --query '{"history": [260, 1196, 1210], "seed": 589}' -k 10 --show title
	@echo
	@echo "The history was three Star Wars films, the film being looked at Terminator 2. Next:"
	@echo "  $(BIN)/shortlist recommend demo/store --query '{\"seed\": 1}' -k 10 --show title"
	@echo "  $(BIN)/shortlist evaluate demo/movielens-1m/shortlist.toml --out demo/evaluate-all"
	@echo "  $(BIN)/shortlist --help"

test: $(STAMP)
	$(BIN)/python -m pytest --timeout 300

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One question a file, one JSON line each.
bench: $(STAMP)
	@found=0; for file in benchmarks/*.py; do \
		[ -e "$$file" ] || continue; found=1; echo "$$file"; $(BIN)/python "$$file" --json || exit 1; \
	done; [ $$found = 1 ] || echo "no benchmarks yet: benchmarks/ has no *.py"

clean:
	rm -rf .venv demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
