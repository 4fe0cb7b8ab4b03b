# Every target makes the environment it needs, anew only when the lock or the interpreter has changed.
SHELL := /bin/sh
PYTHON ?= python3
RUNTIME ?= $(shell if [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null 2>&1; then echo gpu; else echo cpu; fi)

ifeq ($(filter cpu gpu,$(RUNTIME)),)
$(error RUNTIME=$(RUNTIME): expected cpu or gpu)
endif

# A stamp is named after what its environment is made from, so a changed lock makes a new one.
stamp = $(1)/.made-$(shell { cat $(2); $(PYTHON) -VV; } 2>/dev/null | cksum | tr ' ' '-')
DEV := $(call stamp,.venv,requirements/dev.txt)
SERVING := $(call stamp,.venv-serving,requirements/serving-$(RUNTIME).txt requirements/offline.txt)
NO_TORCH := $(call stamp,.venv-no-torch,requirements/serving-cpu.txt requirements/offline.txt requirements/test.txt)
FUZZ_LOCKS := requirements/serving-cpu.txt requirements/offline.txt requirements/test.txt requirements/fuzz.txt
FUZZ := $(call stamp,.venv-fuzz,$(FUZZ_LOCKS))

# What installs packages: each environment's own pip, or a uv, which takes a fifth of the time: make test UV=uv
UV ?=

# For each target of the coverage-guided fuzzer.
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 0

# Three on two cores: a third of their time is waiting for servers. Each takes up to 1.5 GB for torch. One that ends is not
# replaced: pytest-xdist 3.8 waits for ever then. In the order of their names, or files of few but long tests come last, and
# then two processors wait for one file.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: help serve train train-all test test-no-torch test-floors environment environment-no-torch environment-fuzz faults fuzz bench bench-peers image-test check format protos lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-22s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(SERVING) ## serve the models in models/ on PORT, V2_PORT and GRPC_PORT (no torch; RUNTIME=cpu|gpu)
	exec .venv-serving/bin/python -m serving serve

train: $(DEV) ## fetch MNIST, train mnist-cnn, check, export and publish it
	.venv/bin/python -m training run mnist-cnn

train-all: $(DEV) ## make every committed model anew
	.venv/bin/python -m training train-all

test: $(DEV) ## fetch MNIST and run the whole suite
	.venv/bin/python -m training fetch-data
	.venv/bin/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_OPTIONS)

faults: $(DEV) ## break real servers in every way that RELIABILITY.md lists, and measure how long each takes to recover
	.venv/bin/python -m pytest tests/e2e -k faults -m "fault or not fault" -o junit_family=xunit1 \
		--junitxml=build/faults.xml $(PYTEST_OPTIONS)

test-no-torch: $(NO_TORCH) ## run the service's tests without torch (MNIST as `make test` left it)
	.venv-no-torch/bin/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_OPTIONS) tests/serving tests/e2e

# One test is of the lock, not of the service.
test-floors: ## run the service's tests with the oldest releases that pyproject.toml allows (needs uv; MNIST as `make test` left it)
	rm -rf .venv-floors
	$(PYTHON) -m venv .venv-floors
	$(or $(UV),uv) pip install -q --python .venv-floors/bin/python --resolution lowest-direct -r pyproject.toml \
		--extra cpu --extra otlp --extra offline --extra test
	.venv-floors/bin/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_OPTIONS) tests/serving tests/e2e \
		--deselect tests/e2e/test_packages.py::test_every_other_package_of_the_image_is_imported

fuzz: $(FUZZ) ## fuzz every reader, FUZZ_SECONDS each, and the interfaces of a real server
	.venv-fuzz/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)
	.venv-fuzz/bin/python -m pytest tests/fuzz/test_openapi.py tests/fuzz/test_protocol.py

bench: $(DEV) ## measure the service beside a bare server: processor time, rates, latencies, start, memory
	.venv/bin/python -m training fetch-data
	.venv/bin/python -m benchmarks.bench

bench-peers: $(DEV) ## measure it beside other model servers, each installed in build/peers; docs/peers.md, docs/peers.svg
	.venv/bin/python -m training fetch-data
	.venv/bin/python -m benchmarks.bench_peers $(PEERS_OPTIONS)

image-test: $(DEV) ## build the image with docker or podman and test it (RUNTIME=cpu|gpu SCORING=no|yes)
	.venv/bin/python -m training fetch-data
	RUNTIME=$(RUNTIME) PYTHON=.venv/bin/python deploy/image-test.sh

check: $(DEV) ## lint, format and type checks
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: $(DEV) ## format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

protos: $(DEV) ## generate the gRPC stubs from serving/grpc/inference.proto
	.venv/bin/python -m grpc_tools.protoc -I serving/grpc --descriptor_set_out=serving/grpc/stubs/inference.binpb \
		--pyi_out=serving/grpc/stubs serving/grpc/inference.proto

lock: ## pin the dependencies of pyproject.toml anew, with the SHA-256 of their files (needs uv)
	$(LOCK) --extra cpu --extra otlp --extra offline --extra ray --extra training --extra test --extra deploy --extra dev -o requirements/dev.txt
	$(LOCK) --extra cpu --extra otlp -c requirements/dev.txt -o requirements/serving-cpu.txt
	$(LOCK) --extra gpu --extra otlp -c requirements/dev.txt -o requirements/serving-gpu.txt
	$(LOCK) --extra offline -c requirements/dev.txt -o requirements/offline.txt
	$(LOCK) --extra test -c requirements/dev.txt -o requirements/test.txt
	$(LOCK) --extra fuzz -c requirements/dev.txt -o requirements/fuzz.txt
LOCK = $(or $(UV),uv) pip compile -q --upgrade --universal --no-header --no-annotate --no-strip-extras --generate-hashes pyproject.toml

clean: ## remove the environments and what tests leave behind
	rm -rf .venv .venv-serving .venv-no-torch .venv-floors .venv-fuzz .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist

environment: $(DEV) ## make what most targets need

environment-no-torch: $(NO_TORCH) ## make what test-no-torch needs

environment-fuzz: $(FUZZ) ## make what fuzz needs

define environment
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	rm -rf $(1)
	$(PYTHON) -m venv $(1)
	$(if $(UV),$(UV) pip install --python $(1)/bin/python,$(1)/bin/python -m pip install --disable-pip-version-check) --quiet $(foreach lock,$(2),-r $(lock))
	touch $(3)
endef

$(DEV):
	$(call environment,.venv,requirements/dev.txt,$@)
$(SERVING):
	$(call environment,.venv-serving,requirements/serving-$(RUNTIME).txt requirements/offline.txt,$@)
$(NO_TORCH):
	$(call environment,.venv-no-torch,requirements/serving-cpu.txt requirements/offline.txt requirements/test.txt,$@)
$(FUZZ):
	$(call environment,.venv-fuzz,$(FUZZ_LOCKS),$@)
