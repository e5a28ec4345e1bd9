# Twofold. `make demo` runs the main job, `make test` the tests; each sets up what it needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
HOME_DIR ?= .twofold-demo
DATA ?= shop
FROM ?=
READS ?= 1000000
SEED ?= 1
SEEDS ?= 3
FROM_SEED ?= 1

.PHONY: help setup demo test quick lint airflow-check notebook sim chaos bench clean
help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: $(VENV)/.done build/jars/.done build/spark.jsa  ## virtual environment and jars, nothing else

.PHONY: tools
tools:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 (Debian: python3.11 python3.11-venv), or set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11: set PYTHON=..."; exit 1; }
	@command -v java >/dev/null || { echo "java is missing: install Java 17 (Debian: openjdk-17-jre-headless)"; exit 1; }
	@java -version 2>&1 | grep -q 'version "17' || { echo "java is not Java 17 (Debian: openjdk-17-jre-headless): $$(java -version 2>&1 | grep version)"; exit 1; }
	@command -v mvn >/dev/null || { echo "mvn is missing: install Maven (Debian: maven)"; exit 1; }

$(VENV)/.done: requirements.lock pyproject.toml | tools
	@echo "setup: Python packages (requirements.lock, hashed)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

build/jars/.done: pom.xml | tools
	@echo "setup: jars (pom.xml)"
	@rm -rf build/jars
	@mvn --quiet --batch-mode package
	@touch $@

# Without it everything runs as well, and each JVM takes some seconds more to start.
build/spark.jsa: $(VENV)/.done build/jars/.done
	@echo "setup: archive of Spark's classes, for JVMs to start from"
	@JDK_JAVA_OPTIONS="$$($(BIN)/python -c 'from twofold.local.project import SHORT_LIVED; print(SHORT_LIVED)')" \
	  $(BIN)/python -m twofold.spark.class_archive $@ 2>build/class-archive.log || echo "setup: there is none: build/class-archive.log"

demo: setup  ## the main job: feed, nightly batch in the middle, records before and after a live event, comparison
	@$(BIN)/twofold demo --home $(HOME_DIR) --data $(DATA) $(if $(FROM),--from $(FROM))

test: setup lint  ## every test
	@$(BIN)/python -m pytest --side-by-side

quick: setup  ## tests without Spark and without a broker, under a minute
	@HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest -m "not spark and not e2e and not slow"

lint: setup  ## ruff and mypy
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary

AIRFLOW := build/airflow
AIRFLOW_ENV := AIRFLOW_HOME=$(CURDIR)/$(AIRFLOW)/home AIRFLOW__CORE__DAGS_FOLDER=$(CURDIR)/conf/schedule/airflow AIRFLOW__CORE__LOAD_EXAMPLES=False \
  AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
$(AIRFLOW)/.done: requirements-airflow.lock | tools
	@echo "airflow-check: Python packages (requirements-airflow.lock, hashed)"
	@rm -rf $(AIRFLOW)
	@$(PYTHON) -m venv $(AIRFLOW)
	@$(AIRFLOW)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-airflow.lock
	@$(AIRFLOW_ENV) $(AIRFLOW)/bin/airflow db migrate > $(AIRFLOW)/migrate.log 2>&1 || { tail -n 20 $(AIRFLOW)/migrate.log; exit 1; }
	@touch $@

airflow-check: $(AIRFLOW)/.done  ## Airflow itself reads and runs the DAGs of conf/schedule, in an environment of its own
	@$(AIRFLOW_ENV) $(AIRFLOW)/bin/python -m pytest -q -p no:cacheprovider -c /dev/null --rootdir tests/schedule --noconftest --disable-warnings tests/schedule/airflow_dag.py

# The demo's batch is in the middle of its feed: the notebooks want a night that has it all, and two to compare.
$(HOME_DIR)/demo/second-night: | setup
	@test -d $(HOME_DIR)/tables/manifest || $(MAKE) --no-print-directory demo
	@echo "notebook: a second night on $(HOME_DIR)"
	@$(BIN)/twofold batch --home $(HOME_DIR)
	@touch $@

notebook: setup $(HOME_DIR)/demo/second-night  ## the notebooks, on the demo's home (which is made first, where there is none)
	@TWOFOLD_HOME=$(abspath $(HOME_DIR)) $(BIN)/jupyter notebook --ip 127.0.0.1 notebooks

sim: setup  ## the simulator's long form: make sim READS=1000000 SEED=1
	@$(BIN)/python -m twofold.testing.simulate --reads $(READS) --seed $(SEED) --processes 2

chaos: setup  ## random faults on the whole system, a seed after another: make chaos SEEDS=3 (FROM_SEED=7 SEEDS=1 repeats one)
	@$(BIN)/python -m tests.chaos.run --seeds $(SEEDS) --first $(FROM_SEED)

bench: setup  ## figures for docs/results.md; two hours (BENCH="merge backlog" for some)
	@$(BIN)/python -m tests.bench.run $(BENCH)

clean:  ## remove what setup and the demo made
	@rm -rf $(VENV) build .twofold .twofold-demo
