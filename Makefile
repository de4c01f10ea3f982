# Every target sets up what it needs. PYTHON=python3.12 make table uses another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := out=$(VENV)-lowest/outputs report_dir=$(VENV)-lowest/reports

.PHONY: help table check test lint types docs lowest report ui clean
help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

table: $(VENV)/.base ## Table 1a of MAE at desk scale: the main job (README, first command)
	$(BIN)/python experiments/run.py ablation=decoder_depth

check: ## all that CI does (README, second command)
	bash .ci/run

test: $(VENV)/.dev ## the tests alone
	$(BIN)/pytest

lint: $(VENV)/.dev ## ruff and codespell
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/codespell mae experiments reports tests docs notebooks ./*.md

types: $(VENV)/.dev ## mypy
	$(BIN)/mypy

docs: $(VENV)/.dev ## the documentation as a site: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lowest: ## smoke tables, a search and the report with the oldest versions that pyproject.toml allows (PYTHON=python3.10)
	$(PYTHON) -m venv --clear $(VENV)-lowest
	sed -n '/^dependencies/,/^]/s/^ *"\([A-Za-z0-9_-]*\)>=\([0-9.]*\).*/\1==\2/p' pyproject.toml > $(VENV)-lowest/oldest.txt
	$(VENV)-lowest/bin/pip install -q -c $(VENV)-lowest/oldest.txt -e .
	$(VENV)-lowest/bin/python experiments/run.py ablation=decoder_depth,video_masking scale=smoke $(LOWEST)
	$(VENV)-lowest/bin/python experiments/search.py search=masking_ratio scale=smoke trials=3 $(LOWEST)
	$(VENV)-lowest/bin/python reports/build.py $(LOWEST)

report: $(VENV)/.base ## rebuild tables, figures and page from runs and committed results
	$(BIN)/python reports/build.py

ui: $(VENV)/.base ## browse the runs at http://127.0.0.1:5000
	$(BIN)/mlflow ui --backend-store-uri sqlite:///$(CURDIR)/outputs/mlflow.db --host 127.0.0.1

clean: ## remove caches of tools (never runs or results)
	rm -rf .mypy_cache .ruff_cache .pytest_cache
