# kinewatch: `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
FEATURES := --features kinewatch/embedded-broker
BUILD := $(or $(CARGO_TARGET_DIR),target)
VENV := models/.venv
VIDEO ?=
PEER ?=
DATA ?= ../shared/data
ONLY ?=
SOAK ?= 2h
# Of the fault bench, what `make test` tries: a few minutes.
FAULTS_IN_TEST := judge kill broker-away rtsp-reset rtsp-server rtsp-end rtsp-password disk
SECONDS ?= 20
SCORE ?= $(wildcard ../shared/contract/score_intervals.py)
CHECK ?= $(wildcard ../shared/contract/check_events.py)

.PHONY: help app demo demo-ota run conformance deb deb-arm64 deb-amd64 test test-systemd test-arm64 test-v4l2 test-models test-deps lint fmt faults faults-quick kills mutations fuzz bench models build deps clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## Install the system packages that building and running need (asks for nothing when they are there)
	@.ci/apt build run

build: deps ## Build the release binary
	$(CARGO) build --release --workspace --all-targets $(FEATURES)

app: deps # what demo and run need; the same libraries as build, so that nothing is compiled twice
	$(CARGO) build --release --workspace --bins --examples $(FEATURES)

demo: app ## Watch two cameras over real RTSP, print events and a table (VIDEO=my.mp4 for your own file)
	tests/demo.sh $(BUILD) $(if $(VIDEO),"$(VIDEO)")

demo-ota: app test-deps ## Models over the air: publish, take over, a bad release, back by itself, halt; every event judged
	. .ci/ort $(VENV); PYTHON=$(VENV)/bin/python CHECK=$(CHECK) tests/demo-ota.sh $(BUILD)

run: app ## Run the daemon with your kinewatch.toml, as in the README (CONFIG=… for another)
	$(BUILD)/release/kinewatch run --config $(or $(CONFIG),kinewatch.toml)

test-deps: ## Install what the tests need: system packages and a Python environment without PyTorch
	@.ci/apt build run test
	@.ci/venv $(VENV) test

test: test-deps build ## Run every test that needs no PyTorch
	. .ci/ort $(VENV); $(CARGO) test --release --workspace --all-targets $(FEATURES)
	$(CARGO) test --release --workspace $(FEATURES) --test faults -- $(FAULTS_IN_TEST)
	KINEWATCH=$(realpath $(BUILD)/release/kinewatch) $(VENV)/bin/python -m pytest -q models/tests

faults-quick: test-deps build ## Try every fault once, in some minutes (ONLY='kill rtsp' for some)
	$(CARGO) test --release --workspace $(FEATURES) --test faults -- $(ONLY)

faults: test-deps build ## Try every fault in the numbers that are promised: 1 h and the soak (ONLY='kill rtsp' for some, SOAK=2h)
	$(CARGO) test --release --workspace $(FEATURES) --test faults -- --long --soak $(SOAK) --report $(BUILD)/faults.md $(ONLY)

conformance: build ## Try the TUF client on the reference implementation's repositories, and that on ours
	@.ci/apt conformance
	$(CARGO) test --release --workspace $(FEATURES) --test tuf -- published
	[[ -x $(BUILD)/conformance/bin/python ]] || python3 -m venv $(BUILD)/conformance
	$(BUILD)/conformance/bin/pip install -q --disable-pip-version-check tuf==7.0.1 'securesystemslib[crypto]'
	$(BUILD)/conformance/bin/python models/conformance/run.py $(BUILD)/release/kinewatch-tuf-client \
	  --published $(BUILD)/tmp/published
	$(BUILD)/conformance/bin/python models/conformance/run.py $(BUILD)/release/kinewatch-tuf-client --keys ecdsa

deb: app ## Build the Debian package from the release build; prints where it is
	@cross/deb.sh $(BUILD)

deb-arm64: ## Build the arm64 package on x86-64, in a chroot of Debian 12 with its Rust; prints where it is (as root)
deb-amd64: ## Build the x86-64 package the same way: without this machine's Rust and libraries (as root)
deb-arm64 deb-amd64:
	@.ci/apt cross
	@cross/build.sh $(BUILD) $(@:deb-%=%)

test-systemd: app ## Install, hurt, upgrade and purge the package in a container with a real systemd (as root, some minutes)
	@.ci/apt build run test systemd
	container=$$(tests/systemd/root.sh $(BUILD)); deb=$$(STRICT=yes cross/deb.sh $(BUILD)); \
	  KINEWATCH_CONTAINER=$$container KINEWATCH_DEB=$$deb KINEWATCH_SEEN=$(abspath $(BUILD))/systemd/seen \
	  $(CARGO) test --release --workspace $(FEATURES) --test systemd

test-arm64: app ## Run the arm64 build under qemu: tests, replay beside x86-64, package under systemd (as root, half an hour)
	@.ci/apt build run test cross
	@tests/emulated/run.sh $(BUILD) "$$(cross/build.sh $(BUILD) arm64)" $(BUILD)/release/kinewatch

test-v4l2: app ## Capture from a V4L2 device in an emulated machine: formats, unplugging, a device in use (some minutes)
	@.ci/apt build run vm
	tests/v4l2/run.sh $(BUILD)/release/kinewatch $(BUILD)/v4l2

test-models: ## Run the tests of training and export (installs PyTorch)
	@.ci/apt build run test
	@.ci/venv $(VENV) test
	@.ci/venv $(VENV) train
	KINEWATCH=$(realpath $(BUILD)/release/kinewatch) $(VENV)/bin/python -m pytest -q models/tests --run-train

lint: test-deps ## Formatting, clippy, dependency rules and licences, ruff and mypy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets $(FEATURES) -- -D warnings
	$(CARGO) clippy --workspace $(FEATURES) --test systemd --test faults -- -D warnings
	$(VENV)/bin/ruff check models && $(VENV)/bin/ruff format --check models
	cd models && .venv/bin/mypy

fmt: ## Format everything
	$(CARGO) fmt --all
	$(VENV)/bin/ruff format models

bench: build ## Measure speed and memory; prints a table of ratios (PEER=DIR: against a Python script, needs PyTorch)
	@.ci/apt build run test
	@.ci/venv $(VENV) test
	$(if $(PEER),@.ci/venv $(VENV) peer)
	. .ci/ort $(VENV); $(VENV)/bin/python -m kinewatch_models.bench $(BUILD)/release/kinewatch $(if $(PEER),--peer "$(PEER)")
	$(BUILD)/release/kinewatch model bench models/falls --ort-library $$(. .ci/ort $(VENV); echo $$ORT_DYLIB_PATH)

kills: test-deps build ## Kill an update at each of its points, as often as is promised (1,350 times; half an hour); writes the table
	KINEWATCH_OTA_ROUNDS=50 KINEWATCH_BLESS=1 $(CARGO) test --release --workspace $(FEATURES) --test ota_kills -- --nocapture

mutations: test-deps build ## Prove 10,000 mutated graphs as releases are (an hour); writes the table
	. .ci/ort $(VENV); KINEWATCH_MUTATIONS=10000 KINEWATCH_BLESS=1 $(CARGO) test --release --workspace $(FEATURES) --test worker -- mutated --nocapture

fuzz: deps ## Fuzz everything that is parsed from outside (SECONDS=1800: half an hour each, else 20 s)
	tests/fuzz/run $(SECONDS) $(BUILD)/fuzz

models: build ## Rebuild the model packages and their report from a folder of clips (DATA=…; hours; goes on after a kill)
	@.ci/apt build run test
	@.ci/venv $(VENV) test
	@.ci/venv $(VENV) train
	@.ci/venv $(VENV) report
	. .ci/ort $(VENV); models/rebuild.sh $(VENV)/bin/kinewatch-models "$(DATA)" $(BUILD)/models $(BUILD)/release/kinewatch $(SCORE)

clean: ## Remove build products
	$(CARGO) clean
	rm -rf $(VENV)
