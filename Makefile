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

# The demonstration: a teacher from gold rewrites, a student from the teacher's own rewrites, three adapters for it learned
# from what rewrites find, and the table of all of them on the test questions (two hours of one core; resumes).
STUDENT := RECAST__REWARD__JUDGE=0.05 RECAST__REWARD__RETRIEVAL=0.9 RECAST__REWARD__BONUS=0.05 RAYON_NUM_THREADS=1 $(RECAST)
student: system
	$(STUDENT) train teacher --base models/rewriter --out var/student --minutes 50 --resume
	$(STUDENT) train sft --base models/rewriter --distil var/student/teacher --out var/student --minutes 15 --resume
	for seed in 1 2 3; do \
		$(STUDENT) train grpo --base var/student/rewriter --teacher var/student/teacher --out var/student/$$seed \
			--seed $$seed --steps 240 --every 30 --held-out 390 --fresh 0.1 --learning-rate 6e-4 --resume || exit 1; \
	done
	$(STUDENT) experiment table --teacher var/student/teacher --arm var/student/rewriter --arm gold \
		--arm var/student/rewriter+var/student/1/adapter --arm var/student/rewriter+var/student/2/adapter \
		--arm var/student/rewriter+var/student/3/adapter
