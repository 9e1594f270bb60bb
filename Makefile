# Everything that a developer or a user does with this tree. `make` alone lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Build products live outside the clone, so that a second clone (or `git clean`) does not build 500 crates again.
CARGO_TARGET_DIR ?= $(HOME)/.cache/trireme/target
# Python environments, the JDBC driver and the JavaScript client that tests and lints use.
TRIREME_TOOLS ?= $(HOME)/.cache/trireme/tools
export CARGO_TARGET_DIR TRIREME_TOOLS

SF ?= 1
SECONDS ?= 60
RELEASE = scripts/setup.sh build && scripts/build.sh release && TRIREME_BIN=$(CARGO_TARGET_DIR)/release/trireme

.PHONY: help build demo clean-demo test lint bench-service bench-tpch bench-lake bench-estimates bench-joinorder bench-sweeps bench-placement bench-objectives bench-resteer coverage fuzz-sql check-kernels test-opencl test-faults test-schedules test-matrix test-stores gpu

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  Build products: $(CARGO_TARGET_DIR) (CARGO_TARGET_DIR); tools: $(TRIREME_TOOLS) (TRIREME_TOOLS)'

build: ## Build target/release/trireme and target/release/trisql
	@scripts/setup.sh build
	@scripts/build.sh release

demo: ## TPC-H from nothing: build, data, server, 22 queries (SF=1, KEEP=1 leaves the server running)
	@scripts/demo.sh

clean-demo: ## Remove the data that `make demo` made
	@scripts/demo.sh clean

test: ## Install what tests need, run lints and every test
	@scripts/test.sh

lint: ## Formatting, clippy, licences and sources of dependencies, Python, shell
	@scripts/setup.sh build
	@scripts/lint.sh

bench-service: ## Measure the service against a bare Flight server; ARGS=… are its own
	@$(RELEASE) benchmarks/bench.sh bench_service $(ARGS)

bench-tpch: ## TPC-H: fused pipelines, DataFusion's operators, DuckDB (SF=1; ARGS=…)
	@$(RELEASE) benchmarks/bench.sh bench_tpch --scale $(SF) $(ARGS)

bench-lake: ## The lake over simulated stores, beside DataFusion, DuckDB, pyarrow (ARGS='--only scan,tpch')
	@$(RELEASE) benchmarks/bench.sh bench_lake $(ARGS)

bench-estimates: ## Rows expected beside rows counted, ours and stock DataFusion's; ARGS=…
	@$(RELEASE) benchmarks/bench.sh bench_estimates $(ARGS)

bench-joinorder: ## 113 join graphs: our order of joins, DataFusion's own, DuckDB; ARGS=…
	@$(RELEASE) benchmarks/bench.sh bench_joinorder $(ARGS)

bench-sweeps: ## Group-by cardinalities and join build sizes, with a plot; ARGS=…
	@$(RELEASE) benchmarks/bench.sh bench_sweeps $(ARGS)

bench-placement: ## Placement: regret, predicted times, small inputs, on the devices that are there and on simulated ones; ARGS=… are its own
	@$(RELEASE) benchmarks/bench.sh bench_placement $(ARGS)

bench-objectives: ## What latency, cost, energy and bounds change on devices of the catalogue; ARGS='--run opencl0 --write'
	@$(RELEASE) benchmarks/bench.sh bench_objectives $(ARGS)

bench-resteer: ## Wrong estimates, a lost device, a busy one, in the middle of queries, on PoCL; ARGS=… are its own
	@$(RELEASE) benchmarks/bench.sh bench_resteer $(ARGS)

coverage: ## What of TPC-H, SSB, ClickBench and TPC-DS is fused, and whether results are DuckDB's
	@$(RELEASE) benchmarks/bench.sh coverage --write $(ARGS)

check-kernels: ## Compile every kernel of TPC-H, SSB and ClickBench with NVRTC: no GPU needed
	@scripts/devices.sh kernels

test-opencl: ## Conformance and whole workloads on OpenCL, which PoCL runs on a processor (SF=1)
	@SF=$(SF) scripts/devices.sh opencl

test-faults: ## Every fault of a device in every phase, simulated, with 1,000 seeds
	@scripts/devices.sh faults

test-schedules: ## Each family of device kernels under a hundred drawn schedules, interpreted (PART=1/1)
	@scripts/devices.sh schedules $(or $(PART),1/1)

test-matrix: ## The whole conformance matrix on the simulated device and on OpenCL, or a part (PART=1/20 DEVICE=sim)
	@scripts/devices.sh matrix "$(PART)" $(DEVICE)

test-stores: ## Object stores: one conformance list for simstore, moto, azurite, and TRIREME_STORE_URLS
	@scripts/stores.sh

gpu: ## On a machine with a GPU: correctness, then figures; elsewhere it says so
	@scripts/devices.sh gpu

fuzz-sql: ## Generated tables and queries: fused, DataFusion's operators, DuckDB (SECONDS=60 SEED=…)
	@$(RELEASE) benchmarks/bench.sh ../tests/fuzz/fuzz_sql --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)
