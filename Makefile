# Each target first makes .venv where it is missing or out of date. Everything else is a verb of `python -m convoy`.
PORT ?= 3000
MLFLOW_PORT ?= 5000

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help
# dvc.yaml runs `python`; this makes it the one of .venv.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PY := .venv/bin/python
SET_UP := .ci/set-up
# How many tests run at once. Each needs 2 GB of memory.
WORKERS ?= 2
# The tests start hundreds of processes. They share the bytecode, so that not each of them compiles the code again.
MYPY := $(PY) -m mypy src serving pipelines bench lab
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(PY) -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

.PHONY: style help run demo repro thorough compare compare-smoke ui serve quick test prove fuzz check bench clean lock set-up

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done
	@echo
	@echo "  PORT=$(PORT) MLFLOW_PORT=$(MLFLOW_PORT) change the ports, PYTHON= names the interpreter of .venv (3.11 to 3.13)."
	@echo "  The verbs: .venv/bin/python -m convoy --help"

# `make thorough`: a larger CNN, more epochs, and the mean with the mirror image. Four LSTMs on longer texts; each learns from a
# quarter of every batch, so 12 epochs are 3 for it. An adversary moves the texts, so each batch comes twice. One run took 76
# minutes. docs/decisions.md has the figures.
SEED ?= 0
THOROUGH := \
  -S 'candidates.fashion-cnn.network.channels=[64,128]' \
  -S candidates.fashion-cnn.network.flip_averaging=true \
  -S candidates.fashion-cnn.learning.epochs=36 \
  -S candidates.fashion-cnn.learning.patience=36 \
  -S data.reviews.prepare.preprocessing.max_tokens=500 \
  -S data.reviews.prepare.preprocessing.head_tokens=150 \
  -S 'candidates.reviews-lstm.network.context_windows=[5,5,20,20]' \
  -S candidates.reviews-lstm.network.adversarial=0.0075 \
  -S candidates.reviews-lstm.batches.size=256 \
  -S candidates.reviews-lstm.batches.bucket=12 \
  -S candidates.reviews-lstm.learning.epochs=12 \
  -S candidates.reviews-lstm.learning.patience=12

run: ## raw data to REST answers: set-up, dvc repro, publish, MLflow UI and prediction service
	@$(SET_UP) PORT=$(PORT) MLFLOW_PORT=$(MLFLOW_PORT)
	@$(PY) -m convoy verify --mend
	@$(PY) -m dvc repro
	@$(PY) -m convoy publish
	@exec $(PY) -m convoy up --port $(PORT) --mlflow-port $(MLFLOW_PORT)

demo: ## the same on a few thousand real examples, in .demo/ and without touching anything outside it
	@$(SET_UP) PORT=$(PORT) MLFLOW_PORT=$(MLFLOW_PORT)
	@exec $(PY) -m convoy demo .demo --port $(PORT) --mlflow-port $(MLFLOW_PORT)

repro: set-up ## dvc repro and publish
	@$(PY) -m convoy verify --mend
	@$(PY) -m dvc repro
	@$(PY) -m convoy publish

thorough: set-up ## longer training of the best candidates, as an experiment of DVC's: up to 90 minutes on 2 cores
	@$(PY) -m dvc exp run --name thorough-$(SEED) $(THOROUGH) -S trainer.seed=$(SEED)
	@echo "This folder now holds the thorough models and params. To publish them: $(PY) -m convoy publish"
	@echo "To go back: git checkout params.yaml dvc.lock reports && $(PY) -m dvc checkout"

compare: set-up ## what CNNs, recurrent and other networks each see of space and time -> reports/compare/; about an hour on 2 cores
	@$(PY) -m convoy verify --mend
	@$(PY) -m dvc repro lab/dvc.yaml
	@$(PY) -m lab publish

compare-smoke: set-up ## the same on few examples, in .lab/ and without touching anything outside it: minutes, no figure means anything
	@$(PY) -m lab smoke .lab

ui: ## the MLflow UI alone, in the foreground
	@$(SET_UP) MLFLOW_PORT=$(MLFLOW_PORT)
	@exec $(PY) -m convoy ui --mlflow-port $(MLFLOW_PORT)

serve: ## the prediction service alone, in the foreground
	@$(SET_UP) PORT=$(PORT)
	@exec $(PY) -m convoy serve --port $(PORT)

quick: style ## the checks and the tests that need no torch, no MLflow and no long process: within a minute
	@$(MYPY) & types=$$!; tests=0; $(PYTEST) --quick || tests=$$?; wait $$types; exit $$tests

test: quick ## the same, and all else that a change can break: some 20 minutes on 2 cores
	@$(PYTEST) --costly $(KEEP)

prove: test fuzz ## the same, fuzzing, and the long proofs: hundreds of kills, a soak, the whole laboratory, the demo from nothing
	@$(PYTEST) --proofs

bench: set-up ## how fast training and serving are, on what `dvc repro` made here -> reports/bench/; wants wrk
	@$(PY) -m bench

fuzz: set-up ## 120,000 damaged inputs for the service, a quarter over HTTP, and what schemathesis makes of its document
	@$(PY) -m pytest tests/serving/test_serving_fuzz.py tests/serving/test_serving_schemathesis.py --hypothesis-profile=fuzz --hypothesis-show-statistics

check: style ## ruff, ruff format, import-linter and mypy
	@$(MYPY)

style: set-up
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@.venv/bin/lint-imports

clean: ## remove what can be made again; keeps .venv, DVC's cache, mlflow-store/, mlruns/, deployed/ and reports/
	@rm -rf data candidates winner bundles lightning_logs build .demo .lab .run
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .grimp_cache .import_linter_cache
	@find src serving pipelines bench lab tests -name __pycache__ -prune -exec rm -rf {} +

lock: set-up ## write requirements.lock and requirements-cuda.lock from pyproject.toml
	@.ci/lock

set-up:
	@$(SET_UP)
