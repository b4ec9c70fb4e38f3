.DEFAULT_GOAL := help
PYTHON ?= python3
LOCK := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"
# uv installs in seconds; where it cannot (a mirror only pip knows of), pip installs the same pins.
# The locks are complete, so nothing is resolved: --no-deps.
define environment
	@echo "setting up $(1)"
	@if [ -L $(1) ]; then echo "$(1) is a link: not touched"; exit 1; fi
	@$(PYTHON) -m venv --clear $(1)
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --require-hashes $(addprefix -r ,$(2)) || \
		$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes $(addprefix -r ,$(2))
endef

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# --- environments: each is rebuilt when its lock changes ---------------------------------------------------------

setup: .venv/.ready .venv-sam/.ready .venv-emulator/.ready  ## create the virtual environments

.venv/.ready: requirements/dev.txt requirements/model-build.txt layers/model/requirements.txt
	$(call environment,.venv,$^)
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv-%/.ready: requirements/%.txt
	$(call environment,.venv-$*,$^)
	@touch $@

lock:  ## recompile every requirements file from pyproject.toml
	$(LOCK) pyproject.toml --extra parsing --extra local --extra dev -o requirements/dev.txt
	$(LOCK) pyproject.toml -c requirements/dev.txt -o layers/dependencies/requirements.txt
	$(LOCK) pyproject.toml --extra parsing -c requirements/dev.txt -o layers/parsing/requirements.txt \
		$$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' layers/dependencies/requirements.txt)
	$(LOCK) --group sam -o requirements/sam.txt
	$(LOCK) --group emulator -o requirements/emulator.txt
	$(LOCK) --group base-image -o requirements/base-image.txt
	$(LOCK) --no-deps --group model -o layers/model/requirements.txt
	$(LOCK) --no-deps --group model-build -o requirements/model-build.txt
	echo uv | $(LOCK) - -o requirements/uv.txt
	for folder in benchmarks benchmarks/peers/*/ evaluation; do test ! -e $$folder/requirements.in || \
		$(LOCK) $$folder/requirements.in -o $$folder/requirements.txt; done
	cd benchmarks/peers/node && npm install --package-lock-only --omit-lockfile-registry-resolved
	@.venv/bin/python -c "import json, pathlib; p = pathlib.Path('benchmarks/peers/node/package-lock.json'); \
		lock = json.loads(p.read_text()); [one.pop('funding', 0) for one in lock['packages'].values()]; \
		p.write_text(json.dumps(lock, indent=2) + '\n')"  # addresses, of no use here

# --- the stack on this machine -----------------------------------------------------------------------------------
# EDDA_PORT, EDDA_DATABASE_PORT and EDDA_STATE move it; .venv/bin/python -m local.stack --help says more.

demo: setup  ## upload a folder, wait, search: make demo [DOCS=folder] [REPORT=file.json]
	@.venv/bin/python -m local.demo $(if $(DOCS),--documents "$(DOCS)") $(if $(REPORT),--report "$(REPORT)")

local: setup  ## run the stack until Ctrl-C; the data stays
	@.venv/bin/python -m local.stack

sam-build: setup  ## build for Lambda's containers on this machine: make sam-build [RUNTIME=python3.13]
	@RUNTIME='$(if $(filter command line environment,$(origin RUNTIME)),$(RUNTIME))' .venv/bin/python -m local.containers build

sam-local: setup  ## run the stack with its functions in containers until Ctrl-C (needs Docker and make sam-build)
	@.venv/bin/python -m local.containers run

clean:  ## forget the local stack: data, build and logs
	@if [ -e .venv/.ready ]; then .venv/bin/python -m local.clean; fi
	@rm -rf .edda .aws-sam

# --- AWS ---------------------------------------------------------------------------------------------------------

RUNTIME ?= python3.13
ARCHITECTURE ?= arm64

build: .venv/.ready .venv-sam/.ready  ## build for AWS: make build [RUNTIME=python3.13] [ARCHITECTURE=arm64]
	@SAM_CLI_TELEMETRY=0 RUNTIME=$(RUNTIME) ARCHITECTURE=$(ARCHITECTURE) .venv-sam/bin/sam build \
		--parameter-overrides PythonRuntime=$(RUNTIME) Architecture=$(ARCHITECTURE)

# --- checks ------------------------------------------------------------------------------------------------------

lint: .venv/.ready  ## formatting, lint and types
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy layers/core/edda local layers/model tests benchmarks evaluation
	@for folder in functions/*/; do .venv/bin/mypy $$folder || exit 1; done

test: setup evaluation/.venv/.ready  ## every test there is, on a real Postgres and the local stack
	@.venv/bin/python -m pytest

SEEDS ?= 0:200
JOBS ?= 1

simulate: .venv/.ready  ## seeded faults, virtual time: make simulate [SEEDS=first:last] [JOBS=2] [RECORD=file.json] [REPLAY=…] [PLANTED=1]
	@.venv/bin/python -m tests.simulation --seeds $(SEEDS) --jobs $(JOBS) $(if $(REPLAY),--replay $(REPLAY)) \
		$(if $(RECORD),--record "$(RECORD)") $(if $(PLANTED),--planted "$(if $(filter-out 1,$(PLANTED)),$(PLANTED))")

chaos: .venv/.ready  ## real processes, killed and stopped: make chaos [SEEDS=first:last] [REPLAY=seed] [CRASHES=1]
	@.venv/bin/python -m tests.processes --seeds $(SEEDS) $(if $(REPLAY),--replay $(REPLAY)) $(if $(CRASHES),--crashes)

figures: .venv/.ready  ## what faults cost, on real processes: make figures [FIGURES="--workers 4 --documents 40"]
	@.venv/bin/python -m tests.processes.figures $(FIGURES)

long-files: .venv/.ready  ## memory and time of a 1 GB text and a 2,000-page PDF: make long-files [LONG="--megabytes 100 --limit-s 20"]
	@.venv/bin/python -m tests.long_files $(LONG)

# --- benchmarks --------------------------------------------------------------------------------------------------
# benchmarks/README.md says what is measured. .venv/bin/python -m benchmarks --help says more.

PEERS := $(patsubst benchmarks/peers/%/requirements.txt,%,$(wildcard benchmarks/peers/*/requirements.txt))

bench-setup: benchmarks/.venv/.ready $(PEERS:%=bench-peer-%) bench-peer-node  ## install the benchmark's peers, each apart

bench-peer-node:  # a peer that cannot be installed is missing in the results, and named there
	@cd benchmarks/peers/node && npm ci --silent --ignore-scripts --no-audit --no-fund || echo "node: not installed"

bench-peer-%:
	@$(MAKE) --silent benchmarks/peers/$*/.venv/.ready || echo "$*: not installed"

benchmarks/.venv/.ready: benchmarks/requirements.txt
	$(call environment,benchmarks/.venv,$^)
	@touch $@

benchmarks/peers/%/.venv/.ready: benchmarks/peers/%/requirements.txt
	$(call environment,benchmarks/peers/$*/.venv,$^)
	@touch $@

bench: .venv/.ready bench-setup  ## Edda's embed path against its peers, for the record: about 25 minutes
	@.venv/bin/python -m benchmarks full

bench-quick: .venv/.ready bench-setup  ## the same in about two minutes
	@.venv/bin/python -m benchmarks quick

bench-search: .venv/.ready  ## search beside the bare SQL: make bench-search [PLAN=full]
	@.venv/bin/python -m benchmarks.search $(or $(PLAN),quick)

memory-sizes: .venv/.ready  ## which memory is the cheapest, by measuring at Lambda's shares of a CPU (root, Linux)
	@.venv/bin/python -m benchmarks.memory_sizes $(if $(SIZES),--sizes $(SIZES))

cold-start: .venv/.ready  ## import time, first clients and size of each function, with the heaviest imports
	@.venv/bin/python -m benchmarks.cold_start

# --- cost and scale: docs/cost-and-scale.md ----------------------------------------------------------------------

COST = .venv/bin/python -m benchmarks.cost
GIVEN = $(if $(ASSUMPTIONS),--assumptions "$(ASSUMPTIONS)") $(if $(MEASURED),--measured "$(MEASURED)")

cost: .venv/.ready  ## dollars a month beside the alternatives: make cost [ASSUMPTIONS=file.toml] [MEASURED=results.json]
	@$(COST) cost $(GIVEN)

cost-docs: .venv/.ready  # after a change of the assumptions
	@$(COST) docs

scale: .venv/.ready  ## how long 10 million documents take, and what holds them up: make scale [ASSUMPTIONS=…] [PROVIDER=openai-5]
	@$(COST) scale $(GIVEN) $(if $(PROVIDER),--provider "$(PROVIDER)")

# --- evaluation: README.md, "How good is search?" ----------------------------------------------------------------

# What scores and plots, apart from what runs.
evaluation/.venv/.ready: evaluation/requirements.txt
	$(call environment,evaluation/.venv,$^)
	@touch $@

evaluate: setup evaluation/.venv/.ready  ## judged questions: make evaluate [CORPUS=folder] [MODES=hybrid,vector,text] [BASELINE=scores.json] [API=… KEY=…] [MORE="--help"]
	@.venv/bin/python -m evaluation $(if $(CORPUS),--corpus "$(CORPUS)") $(if $(MODES),--modes "$(MODES)") \
		$(if $(BASELINE),--baseline "$(BASELINE)") $(if $(API),--api "$(API)") $(if $(KEY),--key "$(KEY)") $(MORE)

evaluate-answers: setup  ## what is answered that should not be: make evaluate-answers CORPUS=folder [STRANGE=folder] [MORE="--help"]
	@.venv/bin/python -m evaluation.answers --corpus "$(CORPUS)" $(if $(STRANGE),--strange "$(STRANGE)") $(MORE)

.PHONY: evaluate evaluate-answers cost cost-docs scale cold-start memory-sizes help setup lock demo local sam-build sam-local clean build lint test simulate chaos figures long-files bench-setup bench bench-quick bench-search
