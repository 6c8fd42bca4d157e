# What any project can do. The Makefile of a clone includes this file, and that of a project that `tidemark init` made.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# the Python of the last set-up, or else the first suitable one; to change it, run once: `make setup PYTHON=python3.12`
PYTHON ?= $(shell for p in .venv/bin/python python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: help
help: ## show this help
	@# what the Makefile says of a target replaces what is said of it here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { if (!($$1 in said)) names[++n] = $$1; said[$$1] = $$2 } \
		END { for (i = 1; i <= n; i++) printf "  make %-14s %s\n", names[i], said[names[i]] }' \
		plugins/project.mk $(filter-out plugins/project.mk,$(MAKEFILE_LIST))

.PHONY: setup
setup: python ## install everything into this directory (done by every target that needs it)
	@$(PYTHON) plugins/bootstrap.py

.PHONY: python
python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 is on PATH; install one, or name it: make setup PYTHON=/path/to/python3" >&2; exit 1; }

.PHONY: pipeline
pipeline: setup ## run everything: servers, demo shop, extract, load, models, tests (SCALE=0.1 for a bigger shop)
	@$(BIN)/tidemark pipeline $(if $(SCALE),--scale $(SCALE))

.PHONY: demo-change
demo-change: setup ## simulate a day's traffic in the demo shop (ROWS=1000 for a busier day)
	@$(BIN)/tidemark demo change $(if $(ROWS),--rows $(ROWS))

.PHONY: up
up: setup ## start the embedded PostgreSQL servers
	@$(BIN)/tidemark up

.PHONY: down
down: setup ## stop the embedded servers; their data stays
	@$(BIN)/tidemark down

.PHONY: reset
reset: setup ## delete the servers' data and the pipeline's state (asks first)
	@$(BIN)/tidemark reset

.PHONY: follow
follow: setup ## follow the log of LOG_BASED streams until Ctrl-C, with changes after seconds (SOURCE=crm)
	@exec $(BIN)/tidemark follow $(SOURCE)

.PHONY: airflow
airflow: python ## run Airflow on http://127.0.0.1:8080 with a DAG for each schedule, until Ctrl-C
	@$(PYTHON) plugins/bootstrap.py --airflow
	@exec $(BIN)/tidemark airflow up

.PHONY: airflow-down
airflow-down: setup ## stop Airflow from another terminal; its data stays
	@$(BIN)/tidemark airflow down

.PHONY: monitor
monitor: setup ## export metrics until Ctrl-C, with Prometheus and Alertmanager if they are installed (ARGS="--port 9474")
	@exec $(BIN)/tidemark monitor $(ARGS)

.PHONY: docs
docs: setup ## build the models' documentation and serve it on http://127.0.0.1:8081
	@$(BIN)/tidemark docs

.PHONY: dbt
dbt: setup ## run dbt: make dbt ARGS="build --select +fct_sales"; set DBT_SCHEMA_PREFIX=ana_ for separate schemas
	@$(BIN)/meltano invoke dbt-postgres $(ARGS)

.PHONY: dbt-changed
dbt-changed: setup ## build and test the models that changed since the last good run, and everything below them
	@test -f .meltano/dbt/good/manifest.json || { echo "error: no whole run has succeeded yet, so there is nothing to compare with; run make pipeline first." >&2; exit 1; }
	@$(BIN)/meltano invoke dbt-postgres:changed

# the directories whose SQL `make lint` checks
LINTED_SQL := transform

.PHONY: lint
lint: setup-lint ## check SQL, YAML and workflows, by the rules in .sqlfluff and .yamllint
	@$(BIN)/sqlfluff lint --disable-progress-bar $(LINTED_SQL)
	@$(BIN)/yamllint --strict .
	@$(if $(wildcard .github/workflows/*.yml),$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml)

.PHONY: setup-lint
setup-lint: python
	@$(PYTHON) plugins/bootstrap.py --lint

.PHONY: test
test: setup ## check that streams, jobs, schedules, variables, sources and models fit together; this asks no database
	@$(BIN)/tidemark check --files

.PHONY: clean
clean: ## remove what was installed and built; data, state and settings stay
	@if $(BIN)/tidemark --help >/dev/null 2>&1; then $(BIN)/tidemark down; fi
	@rm -rf .venv .meltano/{extractors,loaders,utilities,dbt,logs,run,.tidemark-setup*} logs
	@rm -rf transform/dbt_packages .pytest_cache .ruff_cache .mypy_cache
	@find plugins $(wildcard tests) -name __pycache__ -prune -exec rm -rf {} +
