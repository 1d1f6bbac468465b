# Every target does its own set-up, from PyPI only and without root; a later run finds it done.
# Another interpreter: make test PYTHON=python3.13 (the environment is made anew when the version differs).
# Needs Python 3.11 or later with venv, and make; git only to get here.

PYTHON ?= python3
VENV := .venv
SEED_VENV := .seed-venv
CLIENTS_VENV := .clients-venv
MLSERVER_VENV := .mlserver-venv
OPENVINO_VENV := .openvino-venv
FUZZ_VENV := .fuzz-venv
NOTEBOOKS_VENV := .notebooks-venv
GUIDES_VENV := .guides-venv
EXAMPLES_VENV := .examples-venv
PERF_ANALYZER := .perf-analyzer
IMAGE := .image
IMAGE_BASE := $(IMAGE)/base.tar
RELEASE = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PROTOCOL := src/blindai/oip/grpc

# One stamp for each interpreter and extra, inside the environment, so that both go together.
TAG := $(subst /,_,$(PYTHON))
DEMO := $(VENV)/.demo-$(TAG)
DEV := $(VENV)/.dev-$(TAG)
SEED := $(SEED_VENV)/.seed-$(TAG)
CLIENTS := $(CLIENTS_VENV)/.clients-$(TAG)
MLSERVER := $(MLSERVER_VENV)/.mlserver-$(TAG)
OPENVINO := $(OPENVINO_VENV)/.openvino-$(TAG)
FUZZ := $(FUZZ_VENV)/.fuzz-$(TAG)
NOTEBOOKS := $(NOTEBOOKS_VENV)/.notebooks-$(TAG)
GUIDES := $(GUIDES_VENV)/.guides-$(TAG)
EXAMPLES := $(EXAMPLES_VENV)/.examples-$(TAG)
LOCK := pyproject.toml constraints.txt

# A network namespace without any interface up; a user who is not root becomes one inside it.
NO_NETWORK := unshare --net $(if $(filter-out 0,$(shell id -u)),--user --map-root-user)

.DEFAULT_GOAL := help
.PHONY: help demo notebooks test test-offline test-seed test-onnx test-clients test-openvino test-guides test-examples test-fuzz test-tpm test-containerfile image image-lock verify-image test-image audit audit-tees lint bench protocol clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

demo: $(DEMO)  ## train, start a simulated enclave, attest, upload, predict, prove, and show what the operator sees
	@$(BIN)/blindai demo

notebooks: $(NOTEBOOKS)  ## open the notebooks in JupyterLab, beside a simulated server (OPEN="--no-browser --port 8889")
	@$(NOTEBOOKS_VENV)/bin/python notebooks/open.py $(OPEN)

test: lint  ## everything but seed, clients, openvino and the ONNX suite; style and types first
	$(BIN)/pytest -n auto -m 'not seed and not clients and not openvino and not swtpm' --ignore=tests/seed --ignore=tests/onnx_suite --ignore=tests/on_openvino --ignore=tests/attestation
	$(BIN)/pytest -n auto -m 'not swtpm' --cov=blindai.attestation --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100 tests/attestation

test-offline: $(DEV)  ## the unit tests, in a network namespace that has no network
	$(NO_NETWORK) $(BIN)/pytest -n auto -m 'not network and not seed and not clients and not openvino and not swtpm' --ignore=tests/seed --ignore=tests/onnx_suite --ignore=tests/on_openvino

test-seed: $(SEED)  ## the published 0.3 scripts, byte for byte, with torch and transformers (a large install)
	HF_HUB_OFFLINE=1 $(SEED_VENV)/bin/pytest -m seed tests/seed

test-containerfile: $(DEV) $(IMAGE_BASE)  ## build the Containerfiles, run them and use them (root on Debian; installs its tools)
	$(call install,buildah podman runc iptables containernetworking-plugins)
	$(BIN)/pytest --durations=6 tests/image/check_image.py tests/image/check_notebooks_image.py

image-lock: $(DEV)  ## choose the image's packages anew, of today's archive (Debian, for apt)
	$(BIN)/python image/lock.py

image: $(DEV)  ## the measured VM image and its manifest, in .image/build (root on Debian); KEY=FILE signs the manifest
	$(BIN)/python image/build.py --folder $(IMAGE)
	$(BIN)/python image/predict.py $(IMAGE)/build/uki.efi --release $(RELEASE) > $(IMAGE)/build/manifest.toml
	$(BIN)/python image/sbom.py --release $(RELEASE) > $(IMAGE)/build/sbom.cdx.json
	$(if $(KEY),$(BIN)/blindai manifest sign $(IMAGE)/build/manifest.toml --key $(KEY))

verify-image: image  ## build the image twice, and compare every byte
	$(BIN)/python image/build.py --folder $(IMAGE) --out again
	diff $(IMAGE)/build/SHA256SUMS $(IMAGE)/again/SHA256SUMS

test-image: verify-image  ## boot the image with a software TPM: what is predicted is what a client gets, and nothing else
	$(BIN)/pytest -s --durations=6 tests/image/check_measured_image.py

test-tpm: $(DEV)  ## what needs a TPM, on a software one (root on Debian; installs swtpm and tpm2-tools)
	$(call install,swtpm swtpm-tools tpm2-tools)
	$(BIN)/pytest -m swtpm tests/tpm tests/attestation/test_tpm_live.py

test-onnx: $(DEV)  ## the ONNX backend suite through a running server, about 1,800 models with a process each (minutes)
	$(BIN)/pytest tests/onnx_suite

audit: $(DEV)  ## 200 kills of a store, ten minutes of mixed load (AUDIT=--report=FILE writes its counts down), audit-tees
	BLINDAI_STORE_KILLS=200 $(BIN)/pytest -s tests/server/test_store_kills.py
	cd tests && ../$(BIN)/python -m soak $(AUDIT)
	$(MAKE) audit-tees

# Hours on two cores: every changed bit, every mutant (a run that was broken off goes on), five minutes per fuzz target.
audit-tees: $(DEV) $(FUZZ)  ## every changed bit and mutant, 5 minutes of fuzzing per target; reports under docs/audits
	BLINDAI_FLIPS=all $(BIN)/pytest tests/attestation/test_flips.py
	cd tests && ../$(BIN)/python -m mutants --report=../docs/audits/$$(date -u +%F)-mutants.md
	cd tests && ../$(FUZZ_VENV)/bin/python -m fuzz --seconds=300 --report=../docs/audits/$$(date -u +%F)-fuzz.md

test-fuzz: $(FUZZ)  ## every parser for 10 seconds under a fuzzer that follows its branches (CPython 3.11 on x86_64)
	cd tests && ../$(FUZZ_VENV)/bin/python -m fuzz --seconds=10

test-clients: $(DEV) $(CLIENTS) $(MLSERVER)  ## Triton's, KServe's and MLServer's clients, perf_analyzer and curl, unmodified
	BLINDAI_CLIENTS_VENV=$(CLIENTS_VENV) BLINDAI_MLSERVER_VENV=$(MLSERVER_VENV) BLINDAI_PERF_ANALYZER=$(PERF_ANALYZER) \
		$(BIN)/pytest -m clients tests/clients

test-openvino: $(OPENVINO)  ## models on OpenVINO, in closed processes (x86_64, glibc)
	$(OPENVINO_VENV)/bin/pytest -m openvino tests/on_openvino

test-guides: $(GUIDES)  ## the guide of each framework, and the notebooks, with torch and the others (a large install)
	HF_HUB_OFFLINE=1 $(GUIDES_VENV)/bin/pytest tests/guides/check_frameworks.py tests/guides/check_notebooks.py

test-examples: $(EXAMPLES)  ## each folder of examples/: exported, checked, uploaded, asked, compared (a large install)
	HF_HUB_OFFLINE=1 $(EXAMPLES_VENV)/bin/pytest --durations=6 tests/examples/check_examples.py

lint: $(DEV)  ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(DEV)  ## every bar of issue 3 in one run, 20 minutes; BENCH=quick takes 2, BENCH="full mlp" one part
	$(BIN)/python bench/run.py $(or $(BENCH),full)

protocol: $(DEV)  ## compile oip/grpc's .proto files again
	$(BIN)/python -m grpc_tools.protoc --proto_path=$(PROTOCOL) --descriptor_set_out=$(PROTOCOL)/protocol.pb \
		model_config.proto inference.proto health.proto

clean:  ## remove the environments and everything made by the targets
	rm -rf $(VENV) $(SEED_VENV) $(CLIENTS_VENV) $(MLSERVER_VENV) $(OPENVINO_VENV) $(FUZZ_VENV) $(NOTEBOOKS_VENV) $(GUIDES_VENV) $(EXAMPLES_VENV) $(PERF_ANALYZER) $(IMAGE) .fuzz-found .mutants build dist .demo .hypothesis .mypy_cache .pytest_cache .ruff_cache src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Make the environment $(1), or keep one of the same Python version.
define make-venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "blindai needs Python 3.11 or later, and '$(PYTHON)' is not; try: make PYTHON=python3.12 ..." >&2; exit 1; }
@test "$$($(1)/bin/python -c 'import sys; print(sys.version)' 2>&1)" = "$$($(PYTHON) -c 'import sys; print(sys.version)')" || \
	{ echo "making $(1) with $(PYTHON)"; $(PYTHON) -m venv --clear $(1); }
endef

$(DEMO): $(LOCK)
	$(call make-venv,$(VENV))
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	@touch $@

$(DEV): $(LOCK)
	$(call make-venv,$(VENV))
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(DEMO) $@

$(SEED): $(LOCK) seed-requirements.txt
	$(call make-venv,$(SEED_VENV))
	$(SEED_VENV)/bin/python -m pip install --quiet -c constraints.txt -r seed-requirements.txt -e '.[server]'
	@touch $@

$(CLIENTS): clients-requirements.txt
	$(call make-venv,$(CLIENTS_VENV))
	$(CLIENTS_VENV)/bin/python -m pip install --quiet -r clients-requirements.txt
	@touch $@

$(MLSERVER): mlserver-requirements.txt
	$(call make-venv,$(MLSERVER_VENV))
	$(MLSERVER_VENV)/bin/python -m pip install --quiet -r mlserver-requirements.txt
	@touch $@

$(OPENVINO): $(LOCK)
	$(call make-venv,$(OPENVINO_VENV))
	$(OPENVINO_VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[openvino]' hypothesis pytest pytest-asyncio
	@touch $@

$(FUZZ): $(LOCK) fuzz-requirements.txt
	$(call make-venv,$(FUZZ_VENV))
	$(FUZZ_VENV)/bin/python -m pip install --quiet -c constraints.txt -r fuzz-requirements.txt -e '.[server,nvidia]'
	@touch $@

$(NOTEBOOKS): $(LOCK) notebooks-requirements.txt
	$(call make-venv,$(NOTEBOOKS_VENV))
	$(NOTEBOOKS_VENV)/bin/python -m pip install --quiet -c constraints.txt -r notebooks-requirements.txt -e '.[demo]'
	@touch $@

$(GUIDES): $(LOCK) seed-requirements.txt notebooks-requirements.txt guides-requirements.txt
	$(call make-venv,$(GUIDES_VENV))
	$(GUIDES_VENV)/bin/python -m pip install --quiet -c constraints.txt -r guides-requirements.txt -e '.[demo]'
	@touch $@

$(EXAMPLES): $(LOCK) seed-requirements.txt examples/requirements.txt
	$(call make-venv,$(EXAMPLES_VENV))
	$(EXAMPLES_VENV)/bin/python -m pip install --quiet -c constraints.txt -r examples/requirements.txt -e '.[demo,pictures]'
	@touch $@

# Debian's packages $(1), unless all of them are there. A list that cannot be updated matters only if one is missing.
define install
@! dpkg-query --show --showformat='$${Status}\n' $(1) 2>&1 | grep --quiet --invert-match ' ok installed$$' || \
	{ export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; apt-get install -qq --yes --no-install-recommends $(1); }
endef

# The files of a small Debian with Python. They are old as soon as Debian mends something: `make clean` gets new ones.
$(IMAGE_BASE):
	$(call install,mmdebstrap)
	@mkdir -p $(@D)
	mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates --dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' bookworm $@.part.tar
	@mv $@.part.tar $@
