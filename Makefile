# `make run` and `make test` are all a newcomer needs; both check for the system packages first.
.PHONY: run demo test fmt lint doc eval data models

CARGO := cargo
RECAST := $(CARGO) run --quiet --locked -p recast --

run: system
	$(RECAST) serve --config demo

# The small rewriter against the teacher on the test questions; the page goes to var/demo-report.html.
demo: system
	$(RECAST) demo --three-way

test: system
	$(CARGO) test --workspace --locked

# Prints what is missing and how to get it (or installs it, as root with apt-get).
.PHONY: system
system:
	@tools/ensure-system

fmt:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

# The retrieval table of the README, on the test split.
eval: system
	$(RECAST) eval --config demo --split test

# Writes data/ anew from its recipe; the result is the same, byte for byte.
data:
	python3 data/compose/compose.py
	python3 data/compose/check.py

# Trains the shipped models anew from data/ (about an hour on two cores); resumes after an interruption.
models: system
	RAYON_NUM_THREADS=1 $(RECAST) train all --data data --out models --minutes 20 --resume
	$(RECAST) tune --config demo
