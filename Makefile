# make setup | demo | test | check | bench | bench-long | chaos | clean. Everything is installed into .venv; nothing outside it.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed.stamp

.PHONY: setup demo test check bench bench-long chaos clean

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
	$(BIN)/shortlist evaluate demo/movielens-1m/shortlist.toml --set evaluate.shifts=1 --set train.epochs=4 --out demo/evaluation
	$(BIN)/shortlist publish demo/evaluation/last --to demo/store
	$(BIN)/shortlist recommend demo/store --exclude-seen --show genres --query '{"history": ["Alien (1979)", "Blade Runner (1982)"], "seed": "Terminator, The (1984)"}'
	@echo
	@echo "Ten films for somebody who rated Alien and Blade Runner and looks at The Terminator. Next:"
	@echo "  $(BIN)/shortlist recommend demo/store --query '{\"user\": 5411}'"
	@echo "  $(BIN)/shortlist evaluate demo/movielens-1m/shortlist.toml     # all seven days, 20 to 60 minutes"
	@echo "  $(BIN)/shortlist train demo/movielens-1m/shortlist.toml --out demo/run"
	@echo "  $(BIN)/shortlist --help"

# Two processes, a file in one of them: what a file's tests share is made once. Long files come first (tests/conftest.py).
test: $(STAMP)
	$(BIN)/python -m pytest --timeout 300 --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One question a file, one JSON line each. What needs a project, or an hour, is listed below it.
NOT_IN_BENCH := benchmarks/record.py benchmarks/time_to_quality.py
bench: $(STAMP)
	@for file in $(filter-out $(NOT_IN_BENCH),$(wildcard benchmarks/*.py)); do \
		echo "$$file"; $(BIN)/python "$$file" --json || exit 1; \
	done

	@echo "slow ones, shortlist study designs among them: make -n bench-long"

# The long ones, after `make demo` and `shortlist fetch debian --to demo/debian`.
bench-long: $(STAMP)
	$(BIN)/python benchmarks/time_to_quality.py demo/movielens-1m/shortlist.toml --json
	$(BIN)/python benchmarks/time_to_quality.py demo/debian/shortlist.toml --json
	$(BIN)/shortlist study designs demo/movielens-1m/shortlist.toml --seeds 5 --set train.epochs=1 --set train.validation_fraction=0 --json
	$(BIN)/shortlist study designs demo/debian/shortlist.toml --seeds 5 --set train.epochs=8 --set train.validation_fraction=0 --json

# Kills, damage, hostile and slow clients, signals under load: what a service must survive. Seeds are printed; about half an hour.
chaos: $(STAMP)
	SHORTLIST_OVERLAY_EXAMPLES=2000 $(BIN)/python -m pytest tests/serve/test_overlay.py --timeout 1200
	@for file in $$(grep -l "^if __name__" chaos/*.py); do echo "$$file"; $(BIN)/python "$$file" || exit 1; done

clean:
	rm -rf .venv demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
