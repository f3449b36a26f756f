# Needs python3 (3.11 or newer), a Rust toolchain and make; the rest goes into .venv.
PYTHON ?= python3
STUBS ?= service
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" pyproject.toml
RUST := Cargo.toml $(wildcard Cargo.lock) native/Cargo.toml $(shell find native/src -type f)
export VIRTUAL_ENV := $(CURDIR)/.venv
export PYO3_PYTHON := $(CURDIR)/.venv/bin/python# one interpreter for maturin and clippy, or each rebuilds PyO3
.DEFAULT_GOAL := help
.PHONY: help build run test long defects bench check check-python check-proto check-rust check-docs format proto docs lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

build: .venv/.built ## everything into .venv: locked dependencies, the Rust core, ammeter itself (editable)

run: build ## the server with sample data, until Ctrl-C; reads AMMETER_*
	$(BIN)/ammeter demo --stay

test: build ## all tests of Rust and Python
	cargo test --quiet -p ammeter-native --no-default-features && $(BIN)/pytest

long: build ## the tests that take minutes to hours
	$(BIN)/pytest -m long --timeout 0

defects: build ## breaks a copy of the product on purpose, and sees whether tests notice
	nice $(BIN)/python -m tests.defects

bench: build ## the benchmarks
	$(BIN)/python -m bench

check: check-python check-proto check-rust check-docs ## formats, lints, types, imports, generated files

check-python: build
	$(BIN)/ruff format --check && $(BIN)/ruff check && $(BIN)/mypy && $(BIN)/lint-imports --no-logo

check-proto: .venv/.locked
	$(BIN)/buf lint && scripts/check_stubs

check-rust: .venv/.locked
	cargo fmt --all --check && cargo clippy --quiet --all-targets -- -D warnings

check-docs: build
	$(BIN)/python -m ammeter.config | diff docs/configuration.md - || { echo "docs/configuration.md is stale: make docs"; exit 1; }

format: .venv/.locked ## formats Python and Rust
	$(BIN)/ruff format && $(BIN)/ruff check --fix --quiet && cargo fmt --all

proto: .venv/.locked ## generates service/ammeter/v1 from proto/
	$(BIN)/python -m grpc_tools.protoc -I proto --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --python_out=$(STUBS) --grpc_python_out=$(STUBS) --mypy_out=quiet:$(STUBS) --mypy_grpc_out=quiet:$(STUBS) proto/ammeter/v1/*.proto

docs: build ## generates docs/configuration.md and docs/defects.md
	$(BIN)/python -m ammeter.config > docs/configuration.md && $(BIN)/python -m tests.defects --page

lock: .venv/.locked ## pins all dependencies anew, by hash
	$(COMPILE) --upgrade --output-file requirements.lock && $(COMPILE) --upgrade --constraint requirements.lock --group dev --output-file requirements-dev.lock

clean: ## removes what make made, and nothing else
	rm -rf .venv target .tools .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache service/ammeter/_native*.so

.venv/.locked: requirements-dev.lock
	$(PYTHON) -m venv .venv && $(BIN)/pip install --quiet --require-hashes --requirement $< && touch $@

.venv/.built: .venv/.locked pyproject.toml $(RUST)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip install --quiet --no-deps --no-build-isolation --config-settings build-args=--locked --editable . && touch $@
