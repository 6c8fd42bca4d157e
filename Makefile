# For developers of Tidemark, and for docker compose; what any project can do is in plugins/project.mk.
include plugins/project.mk
LINTED_SQL += demo
# without its files of bytecode, pytest rewrites the assertions of all tests for each worker of each run
unexport PYTHONDONTWRITEBYTECODE
COMPOSE ?= $(if $(shell docker compose version 2>/dev/null),docker compose,docker-compose)

.PHONY: setup-dev
setup-dev: python ## also install what `make test` and `make lint` need
	@$(PYTHON) plugins/bootstrap.py --dev

.PHONY: secrets
secrets: ## create the passwords, keys and certificates for docker compose in .secrets/; existing ones stay
	@docker/secrets.sh

.PHONY: compose-ready
compose-ready:
	@$(COMPOSE) config --quiet || { echo "error: this needs docker compose 2.24 or later, and a Docker that this user may use." >&2; exit 1; }
	@chmod -R a+rX docker demo monitoring plugins/tidemark/src/tidemark/roles

# Profiles of this call, and those of the environment or .env. Each is exported only if it is set here: an empty variable would
# override .env.
COMMA := ,
CALLED := $(if $(WORKERS),celery) $(if $(MONITORING),monitoring) $(if $(LOGS),logs) $(if $(FOLLOW),follow)
KEPT := $(subst $(COMMA), ,$(or $(COMPOSE_PROFILES),$(shell sed -n 's/^COMPOSE_PROFILES=//p' .env 2>/dev/null | tr -d '"')))
# the demo shop's dashboards, where its models are a package of the project
export DEMO_DASHBOARDS ?= $(if $(shell grep -s '/demo/shop' transform/packages.yml | grep -v '^ *\#'),./demo/shop/dashboards,./monitoring/grafana/none)
OPTIONAL := --profile celery --profile monitoring --profile logs --profile follow

.PHONY: compose-up
ifneq ($(strip $(CALLED)),)
compose-up: export COMPOSE_PROFILES := $(subst $(eval) ,$(COMMA),$(sort $(CALLED) $(KEPT)))
endif
ifdef WORKERS
compose-up: export AIRFLOW_EXECUTOR := CeleryExecutor
endif
compose-up: compose-ready secrets ## build and start all services, and wait until they are healthy (WORKERS=2, MONITORING=1, LOGS=1, FOLLOW=1)
	@# one image after the other, because the second is built on the first
	@if $(COMPOSE) config --images | grep -q -e '-airflow:local$$'; then \
		$(COMPOSE) build --quiet etl && $(COMPOSE) build --quiet airflow-init pgbouncer; \
	else $(COMPOSE) pull --quiet etl airflow-init pgbouncer; fi
	@# remove services that are no longer wanted
	@unwanted=$$(comm -23 <($(COMPOSE) $(OPTIONAL) config --services | sort) <($(COMPOSE) config --services | sort)); \
		[ -z "$$unwanted" ] || $(COMPOSE) $(OPTIONAL) rm --stop --force $$unwanted >/dev/null 2>&1
	@$(COMPOSE) up --detach --wait --no-build
	@# servers that are older than monitoring have no logins for it
	@! $(COMPOSE) config --services | grep -qx prometheus || for server in $$($(COMPOSE) config --services | grep _db$$); do \
		$(COMPOSE) exec --no-TTY $$server /etc/tidemark/entrypoint.sh /docker-entrypoint-initdb.d/10-roles.sh monitoring || exit; done
	@echo "Airflow is on http://$$($(COMPOSE) port airflow-api-server 8080): user admin, password in .secrets/AIRFLOW_ADMIN_PASSWORD"
	@! $(COMPOSE) ps --services | grep -qx grafana || \
		echo "Grafana is on http://$$($(COMPOSE) port grafana 3000): user admin, password in .secrets/GRAFANA_ADMIN_PASSWORD"
	@! $(COMPOSE) ps --services | grep -qx kibana || { $(COMPOSE) exec --no-TTY log-shipper tidemark-entrypoint tidemark logs dashboards && \
		echo "Kibana is on http://$$($(COMPOSE) port kibana 5601): user elastic, password in .secrets/ELASTIC_PASSWORD"; }

.PHONY: compose-down
compose-down: ## stop all services; their data stays
	@$(COMPOSE) $(OPTIONAL) --profile jobs down

.PHONY: compose-logs
compose-logs: ## follow the services' logs (SERVICE=airflow-scheduler for one)
	@$(COMPOSE) $(OPTIONAL) logs --follow --tail 100 $(SERVICE)

.PHONY: compose-run
compose-run: compose-ready secrets ## run a job in a container: make compose-run BLOCKS="tap-postgres target-postgres dbt-postgres:run"
	@test -n "$(BLOCKS)" || { echo 'error: name what to run: make compose-run BLOCKS="tap-postgres target-postgres"' >&2; exit 1; }
	@$(COMPOSE) run --rm etl tidemark run $(BLOCKS)

test: test-code ## run all tests, on separate servers and directories, then check this project's files

.PHONY: test-code
test-code: setup-dev
	@$(BIN)/pytest

.PHONY: test-long
test-long: setup-dev ## run the tests that take long: all pairs of versions, a standby, four workers, parity with the stock target
	@$(BIN)/pytest -m long

.PHONY: test-airflow
test-airflow: setup-dev ## run the tests that start Airflow: runs, failures, alerts, backfills, several machines, its pages
	@$(BIN)/pytest -m "airflow and not long" tests/airflow

.PHONY: test-monitoring
test-monitoring: setup-dev ## run the tests of dashboards and rules, with a real Prometheus and what it scrapes
	@$(BIN)/pytest -m monitoring --numprocesses=1 tests/monitoring

.PHONY: test-compose
test-compose: setup-dev ## build the images, start all services and test them, with this machine's Docker
	@$(BIN)/pytest -m compose --numprocesses=0 --timeout=1800 tests/compose

.PHONY: chaos
chaos: setup-dev ## repeat the crashes, races and delays of `make test` many times (CRASHES=30, or 200 for the log; KILLS=200)
	@CRASHES=$(or $(CRASHES),30) $(BIN)/pytest --numprocesses=1 --timeout=7200 tests/chaos \
		tests/singer/test_crashes.py tests/singer/test_two_runs.py tests/singer/test_late_commits.py
	@CRASHES=$(or $(CRASHES),30) $(BIN)/pytest --numprocesses=1 --timeout=7200 -m long \
		tests/integration/test_any_way.py tests/integration/test_in_place_property.py
	@CRASHES=$(or $(CRASHES),200) EXAMPLES=$(or $(EXAMPLES),50) $(BIN)/pytest --numprocesses=1 --timeout=7200 -m "long or not long" \
		tests/singer/test_log_crashes.py tests/singer/test_log_property.py

.PHONY: test-log
test-log: setup-dev ## run all tests of LOG_BASED streams, the long ones too; TIDEMARK_POSTGRES_BIN names the servers' version
	@$(BIN)/pytest --numprocesses=1 --timeout=900 -m "long or not long" $(wildcard tests/singer/test_log_*.py)

.PHONY: bench
bench: setup-dev ## time the same load through raw COPY, this project and its peers (SCALE=1, TPCH=, ROUNDS=5, PEERS=, ONCE=dlt for one first load, ALSO=reconcile,marts)
	@$(BIN)/python -m bench

.PHONY: bench-reconcile
bench-reconcile: setup-dev ## time `tidemark reconcile` beside reading the same rows (ROWS=10000000, ROUNDS=3)
	@$(BIN)/python -m bench.reconcile

.PHONY: bench-cdc
bench-cdc: setup-dev ## time changes of the log: decoded, loaded, followed, beside other tools (ROWS=, CHANGES=, SECONDS=600, RATE=2000, ROUNDS=3, PEERS=)
	@$(BIN)/python -m bench.cdc

.PHONY: bench-metrics
bench-metrics: setup-dev ## time scrapes of `tidemark metrics` with a long history (STREAMS=400, RUNS=2500, SCRAPES=20)
	@$(BIN)/python -m bench.metrics

.PHONY: bench-startup
bench-startup: setup-dev ## time an idle run by process, and its imports by package (ROUNDS=5)
	@$(BIN)/python -m bench.startup

.PHONY: bench-watched
bench-watched: setup-dev ## time loads with and without logs and metrics, in pairs (SCALE=1, ROUNDS=7)
	@$(BIN)/python -m bench.watched

.PHONY: bench-transform
bench-transform: setup-dev ## time builds of the marts beside stock dbt's (SCALES="1 5", ROWS=10000, ROUNDS=3, PEERS=)
	@$(BIN)/python -m bench.transform

.PHONY: bench-tracking
bench-tracking: setup-dev ## time the loader's merge with and without change tracking (ROWS=100000, ROUNDS=7)
	@$(BIN)/python -m bench.tracking

# files in git, and files that could be added
LISTED := git ls-files --cached --others --exclude-standard

lint: lint-code ## check Python, types, SQL, YAML, workflows, docker files, shell scripts and rules of alerts

.PHONY: lint-code
lint-code: setup-dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@said=$$(PYTHONPATH=plugins/tidemark-dbt/src:plugins/tidemark-airflow/src $(BIN)/lint-imports --no-logo --no-cache 2>&1) || { echo "$$said"; false; }
	@$(BIN)/python docs/build_site.py --to "$$(mktemp -d)"
	@$(LISTED) '.github/dependabot.yml' | xargs -r $(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot
	@$(LISTED) 'docker-compose*.yml' | xargs -r $(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jactionlint --strict-exit --no-online
	@$(LISTED) '*Dockerfile' | xargs -r $(BIN)/hadolint --failure-threshold=warning
	@if shellcheck=$$(PATH="$(CURDIR)/$(BIN):$$PATH" command -v shellcheck); then \
		$(LISTED) '*.sh' .ci/run .ci/secrets .ci/targets | xargs -r "$$shellcheck" --external-sources --severity=warning; \
else echo "Shell scripts were not checked: there is no wheel of shellcheck for this machine; install its package."; fi
	@if command -v promtool >/dev/null && command -v amtool >/dev/null; then \
		said=$$({ promtool check config --lint-fatal monitoring/prometheus/prometheus.yml && \
			monitoring/alertmanager/configure.sh | amtool check-config /dev/stdin; } 2>&1) || { echo "$$said"; false; }; \
else echo "Rules of alerts were not checked: there is no promtool or no amtool; install Prometheus and Alertmanager."; fi
	@$(LISTED) '*.py' '*.sql' | xargs wc -l | awk '$$1 > 400 && $$2 != "total" { print "warning: " $$2 " has " $$1 " lines: is it one idea?" }'

# what builds the site; mkdocs-material ends in May 2027, and `zensical` reads the same mkdocs.yml
GENERATOR ?= mkdocs

.PHONY: site
site: setup-dev ## build the documentation into site/, as pages that need no network (GENERATOR=zensical, SITE_URL=)
	@$(BIN)/python docs/build_site.py --generator $(GENERATOR) $(if $(SITE_URL),--url $(SITE_URL))
	@echo "Open site/index.html."

REFERENCE ?= docs/reference

.PHONY: reference
reference: setup-dev ## write the generated pages of docs/reference again: commands, settings, variables, tables
	@$(BIN)/typer tidemark.cli.app utils docs --name tidemark --title Commands | sed "s/&#x27;/'/g; s/&quot;/\"/g; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g; s/[[:space:]]*$$//" > $(REFERENCE)/commands.md
	@PYTHONPATH=plugins/tidemark-airflow/src $(BIN)/python docs/generate $(REFERENCE)

.PHONY: dashboards
dashboards: setup-dev ## write Grafana's dashboards again, from monitoring/grafana/generate
	@$(BIN)/python -m monitoring.grafana.generate monitoring/grafana/dashboards demo/shop/dashboards

.PHONY: definitions
definitions: setup ## write Meltano's lock files of the plugins again, with the settings that tap and target have in their code
	@for plugin in extractors/tap-postgres loaders/target-postgres; do \
		.meltano/$$plugin/venv/bin/python plugins/singer-postgres/definitions.py || exit; done
	@$(BIN)/python -m tidemark.release .

.PHONY: security
security: setup-dev ## look for secrets in the files and their whole history, and for pins with an advisory
	@.ci/secrets
	@$(BIN)/python .ci/advisories.py $(if $(ADVISORIES),--$(ADVISORIES))

.PHONY: format
format: setup-dev ## fix what lint can fix by itself
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet
	@$(BIN)/sqlfluff fix --disable-progress-bar --quiet $(LINTED_SQL)

.PHONY: wheels
wheels: setup ## build the packages of plugins/ into dist/, with the pinned build backend and without a network
	@rm -rf dist
	@for package in plugins/*/pyproject.toml; do \
		$(BIN)/uv build --quiet --offline --wheel --no-build-isolation --python $(BIN)/python --out-dir dist "$${package%/*}" || exit; done
	@ls dist/*.whl

.PHONY: release-notes
release-notes: python ## print the changelog's section for a version, if all files have that version (TAG=v0.1.0)
	@$(PYTHON) .ci/release.py $(TAG)

# these options are at the head of each compiled file, where Dependabot reads how to compile it again
COMPILED := --universal --python-version 3.11 --generate-hashes

.PHONY: requirements
requirements: setup ## compile plugins/requirements/*.in again (UPGRADE=1 for the newest versions)
	@cd plugins/requirements && for name in uv project build tap-postgres target-postgres dbt-postgres airflow lint dev singer-test; do \
		UV_CUSTOM_COMPILE_COMMAND="make requirements ($(COMPILED))" ../../$(BIN)/uv pip compile --quiet $(COMPILED) --no-annotate \
			--no-emit-index-url $(if $(UPGRADE),--upgrade) $$name.in -o $$name.txt || exit; done
