# Two commands for everybody: `make run` starts the server, `make test` proves it. The others are parts of these.
.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo
# How long `make fuzz` looks for what it has not seen yet.
FUZZ_SECONDS ?= 60
# Fuzz targets that read untrusted text, each with seeds in fuzz/seeds.
PARSERS = range policy sealed jwt fields
RUN_AND_PUBLISH = python3 bench/peers/bench.py run --publish

.PHONY: help
help: ## Shows this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: run
run: ## Builds the server and starts it on 127.0.0.1:8080 with its data in ./carrack-data
	$(CARGO) build --locked --release --bin carrack
	exec target/release/carrack serve

.PHONY: test
test: tools lint deny check ## Everything that proves it: format, lints, licences, and all tests through the real binary

.PHONY: tools
tools: ## Installs what the tests need, or says what is missing
	tests/tools.sh

.PHONY: lint
lint: ## Format, clippy, documentation: no warning passes
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items

.PHONY: deny
deny: ## Licences, sources, and who may link what
	$(CARGO) deny --locked check bans licenses sources

.PHONY: advisories
advisories: ## Known vulnerabilities of dependencies; needs the network
	$(CARGO) deny check advisories

.PHONY: check
check: ## Unit, property, conformance and black-box tests
	$(CARGO) test --locked --workspace --no-fail-fast

.PHONY: soak
soak: ## Kills the server 1,000 times under load and 50 times in jobs, cuts its power 1,000 times, ends one of two nodes 40 times, and looks for what was kept; 240,000 racing claims
	CARRACK_KILLS=1000 $(CARGO) test --locked --release -p carrack --test it operations::crash -- --nocapture
	CARRACK_CUTS=1000 $(CARGO) test --locked --release -p carrack --test it operations::power_cut -- --nocapture
	CARRACK_JOB_KILLS=50 $(CARGO) test --locked --release -p carrack --test it archives::crash -- --nocapture
	CARRACK_CLAIM_RACES=1000 $(CARGO) test --locked --release -p carrack --test it of_two_hundred_that_come -- --nocapture
	CARRACK_NODE_KILLS=20 CARRACK_NODE_STOPS=20 $(CARGO) test --locked --release -p carrack --test it cluster::dying -- --nocapture --test-threads 1
	CARRACK_NODE_CLAIM_RACES=200 CARRACK_REVOCATIONS=50 $(CARGO) test --locked --release -p carrack --test it cluster::agree -- --nocapture

.PHONY: fuzz
# libdeflate includes one table twice, which AddressSanitizer takes for two definitions of one name.
fuzz: export ASAN_OPTIONS = detect_odr_violation=0
fuzz: ## Random ropes through the socket writer, archives through an independent reader, and every parser of untrusted text; needs nightly and cargo-fuzz
	@rustup run nightly rustc --version >/dev/null 2>&1 || \
		{ echo "make fuzz needs a nightly compiler: rustup toolchain install nightly" >&2; exit 1; }
	@command -v cargo-fuzz >/dev/null || \
		{ echo "make fuzz needs cargo-fuzz and a C++ compiler: cargo install cargo-fuzz --locked" >&2; exit 1; }
	$(CARGO) +nightly fuzz run writer -- -max_total_time=$(FUZZ_SECONDS) -max_len=400 -len_control=0 -timeout=30
	$(CARGO) +nightly fuzz run archive -- -max_total_time=$(FUZZ_SECONDS) -max_len=600 -len_control=0 -timeout=30
	for target in $(PARSERS); do \
		mkdir -p fuzz/corpus/$$target && \
		$(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=1000 -timeout=10 || exit 1; \
	done

.PHONY: bench
bench: ## The figures of the main job, on the release binary
	$(CARGO) build --locked --release --bin carrack
	python3 bench/main_job.py
	python3 bench/slow_uploads.py --proto put
	python3 bench/slow_uploads.py --proto tus
	$(CARGO) bench --locked -p carrack-zip -p carrack-catalog -p carrack-service

.PHONY: bench-s3
bench-s3: ## Bytes to S3 and back beside 'aws s3 cp', with Garage; needs both on the PATH
	$(CARGO) build --locked --release --bin carrack
	python3 bench/s3.py

.PHONY: bench-tls
bench-tls: ## Transfers over TLS beside nginx, and one HTTP/2 stream over a long line
	bench/peers/setup.sh nginx
	$(CARGO) build --locked --release --bin carrack
	python3 bench/peers/bench.py run --cases T1,T16,T1h,TU,TUh
	python3 bench/h2_delay.py

.PHONY: bench-nginx
bench-nginx: ## Downloads beside nginx, published in docs/benchmarks.md; BENCH_ROUNDS=7, about 20 minutes
	bench/peers/setup.sh nginx
	$(CARGO) build --locked --release --bin carrack
	$(RUN_AND_PUBLISH) --targets nginx,carrack
	$(RUN_AND_PUBLISH) --targets nginx,carrack --congestion-control reno --cases D1,D1t,D2,D3,D4,T1,T16

.PHONY: bench-peers
bench-peers: ## The same beside caddy, dufs, miniserve and copyparty too; what cannot be installed is left out
	bench/peers/setup.sh
	$(CARGO) build --locked --release --bin carrack
	$(RUN_AND_PUBLISH) --targets nginx,carrack,caddy,dufs,miniserve,copyparty
