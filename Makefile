# Two commands for a fresh machine: `make verify` and `make test`. Every target sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# Tiny tensors: more than one thread only adds noise, and sums keep their order on one.
export OMP_NUM_THREADS := 1
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help setup verify train test test-long test-kills test-experiment experiments bench bench-compare bench-grading bench-step bench-results log-schema testbed optimizers test-optimizers optimizer-gradients selftest test-trl proofs coverage lint format truth-table kill-matrix false-alarms mutants clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: $(INSTALLED)  ## a virtual environment in .venv, every version pinned by constraints.txt

verify: setup  ## record a gradient tape from a real run and check every invariant on it
	$(BIN)/python -m reference --record build/tapes
	$(BIN)/projected-grpo verify --tape build/tapes/route.safetensors

train: setup  ## the whole experiment on the tiny testbed, routed, half a minute; runs/tiny-route-seed0
	$(BIN)/projected-grpo train

test: setup  ## all tests but those that need an extra
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-long: setup  ## the tests that take a minute and more: the whole museum, and the scripts of all its faults
	$(BIN)/python -m pytest -m long -n 2 --dist loadfile

test-kills: setup  ## runs that are killed at twenty random steps and go on to the same bits, two minutes
	$(BIN)/python -m pytest -m kills

test-experiment: setup  ## what the testbed shows on three seeds: vanilla hacks, routing and erasing do not, random V is inert
	$(BIN)/python -m pytest -m experiment

EXPERIMENTS ?= arms arithmetic
experiments: setup  ## run experiments, EXPERIMENTS="arms spaces", and put their tables and figures into docs/experiments
	mkdir -p docs/experiments
	for name in $(EXPERIMENTS); do \
	  $(BIN)/projected-grpo experiment $$name --out build/experiments && \
	  cp build/experiments/$$name.md build/experiments/$$name.csv build/experiments/$$name.json build/experiments/$$name.svg docs/experiments || exit; \
	done

.venv/.installed-benchmarks: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[benchmarks]'
	touch $@

bench: .venv/.installed-benchmarks  ## the price of routing as a pytest-benchmark suite, half a minute; projected-grpo bench measures more
	$(BIN)/python -m pytest benchmarks -p benchmark -p no:xdist --benchmark-columns=min,median,iqr,rounds --benchmark-sort=name

BASE ?= main
bench-compare: .venv/.installed-benchmarks  ## that suite on the revision BASE and on this checkout, in one job
	$(BIN)/python benchmarks/compare.py $(BASE)

bench-grading: setup  ## programs graded a second, beside one process for each
	$(BIN)/python benchmarks/grading.py

bench-step: setup  ## a step of the tiny experiment, beside transformers' generate and a backward pass for each source
	$(BIN)/python benchmarks/tiny_step.py

bench-results: setup  ## logs of 50 runs of 10,000 steps, read and tabled, beside json.loads of the same lines
	$(BIN)/python benchmarks/results.py

log-schema: setup  ## write the log's JSON Schema and docs/logs.md anew from the declaration of its metrics
	$(BIN)/python -m projected_grpo.logs --write

testbed: setup  ## warm up the testbeds' models anew; build/testbed and build/arithmetic, to be compared with what is shipped
	$(BIN)/python -m projected_grpo.testbed --out build/testbed
	$(BIN)/python -m projected_grpo.arithmetic --out build/arithmetic

optimizers: setup  ## measure every optimizer of torch and pytorch_optimizer, some minutes, and write docs/optimizers.md
	$(BIN)/python -m projected_grpo.cli.optimizers_guide docs

test-optimizers: setup  ## the theory on every optimizer there is, some minutes
	$(BIN)/python -m pytest -m survey

optimizer-gradients: setup  ## record anew the gradients of a real run that optimizers are measured on
	$(BIN)/python -m invariants.optimizers.record

selftest: setup  ## the museum on this machine: every fault must be caught by the invariant that is named for it
	$(BIN)/projected-grpo verify --selftest

.venv/.installed-trl: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[trl]'
	touch $@

test-trl: .venv/.installed-trl  ## the tests inside TRL's GRPOTrainer, with the extra trl
	$(BIN)/python -m pytest tests/with_trl

.venv/.installed-proofs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[proofs]'
	touch $@

proofs: .venv/.installed-proofs  ## every symbolic proof and float lemma; build/proofs.json
	mkdir -p build
	$(BIN)/python -m invariants.proofs --json build/proofs.json

coverage: setup  ## all tests and the main job again, counting branches; fails under 95 % of reference, invariants and projected_grpo
	rm -rf build/coverage
	$(BIN)/coverage run -m pytest -m 'not survey' -n 2 --dist loadfile
	$(BIN)/coverage run $(BIN)/projected-grpo verify --profile quick
	$(BIN)/coverage run $(BIN)/projected-grpo verify invariants.subjects.reference:subject --profile quick
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: setup  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## put the code into its format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

truth-table: setup  ## write the truth table of docs/theory.md anew
	$(BIN)/python -m invariants.truth_table --write docs/theory.md

kill-matrix: setup  ## pin what every fault of the museum trips, and write docs/museum.md and its picture
	$(BIN)/python -m invariants.museum --write

SEEDS ?= 20
ROTATE ?= 20
false-alarms: setup  ## run the suite on correct subjects over SEEDS seeds, settings taking turns; any alarm fails
	$(BIN)/python tests/false_alarms.py --seeds $(SEEDS) --rotate $(ROTATE)

.venv/.installed-mutation: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mutation]'
	touch $@

mutants: .venv/.installed-mutation  ## change the core line by line, a quarter of an hour; fails if tests notice under 90 %, or at a survivor unexplained
	$(BIN)/mutmut run --max-children 2
	$(BIN)/python tests/mutants.py --write docs/mutation.md

clean:  ## remove what the other targets made
	rm -rf .venv build dist mutants .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
