# `make run` and `make test` are all a newcomer needs; both check for the system packages first.
.PHONY: run demo test fmt lint doc eval data models student

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

# Three adapters for the rewriter, learned from rewards, and what they are worth beside the teacher (half an hour).
STUDENT := RECAST__REWARD__JUDGE=0.2 RECAST__REWARD__RETRIEVAL=0.6 RECAST__REWARD__BONUS=0.2 RAYON_NUM_THREADS=1 $(RECAST)
student: system
	for seed in 1 2 3; do \
		$(STUDENT) train grpo --base models/rewriter --teacher models/teacher --out var/student-$$seed --seed $$seed \
			--steps 200 --every 20 --held-out 390 --fresh 0.1 --resume || exit 1; \
	done
	$(RECAST) experiment table --teacher models/teacher --arm models/rewriter --arm gold \
		--arm models/rewriter+var/student-1/adapter --arm models/rewriter+var/student-2/adapter \
		--arm models/rewriter+var/student-3/adapter
