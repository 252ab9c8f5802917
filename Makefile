# `make` lists what there is.

.DEFAULT_GOAL := help
.PHONY: help test quick lint deny bench scale api-load picker-load cluster-bench hey scaling long fuzz demo clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: ## Everything that CI runs, with a summary line
	@tests/all

quick: ## The Rust tests
	cargo test --workspace --locked

lint: ## Formatting and clippy, warnings refused
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

deny: ## Licences, banned and foreign dependencies
	cargo deny --locked --offline check bans licenses sources

bench: ## The benchmarks of docs/benchmarks.md
	cargo bench --locked -p weir-datastore

scale: ## Scraping 10 to 1,000 endpoints, beside a bare scraper (minutes)
	cargo build --release --locked -p weir -p weir-tests
	target/release/scale

api-load: ## Reads of the metrics API per core, beside a bare server (a minute)
	cargo build --release --locked -p weir -p weir-tests
	target/release/api-load

picker-load: ## Requests that the picker places per core, beside a bare server (ten minutes)
	cargo build --profile dist --locked -p weir -p weir-tests
	target/dist/picker-load table

cluster-bench: ## Freshness, resources and decisions in a real control plane (a quarter of an hour, as root)
	tests/cluster/install
	cargo build --release --locked -p weir -p weir-tests
	target/release/cluster-bench

hey: ## 45,000 chat requests through Envoy, beside round robin (ten minutes)
	cargo build --profile dist --locked -p weir -p weir-tests
	target/dist/hey-bench

scaling: ## The tables of docs/scaling.md: policies, loads, start times (minutes)
	cargo run --release --locked -p weir-what-if --example table

long: ## Up, down and a burst of the real HPA beside its replay; one picker under load for half an hour: its memory; holds of 90 s and of five minutes; 10,000 held requests; a minute without the API server
	cargo test --locked -p weir -p weir-tests --test epp -- --ignored
	cargo test --locked -p weir -p weir-tests --test replayed -- --ignored --nocapture
	WEIR_TESTS_OUTAGE=60 cargo test --locked -p weir -p weir-tests --test scaler
	cargo build --profile dist --locked -p weir -p weir-tests
	target/dist/picker-load long --endpoints 100 --prompt 32

fuzz: ## Each fuzz target for three minutes (nightly Rust and cargo-fuzz)
	fuzz/run

demo: ## The whole line on this machine, for a minute
	cargo run --release --locked -- demo --for 60s

clean: ## Remove what was built
	cargo clean
