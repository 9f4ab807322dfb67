# Each target works as the first command in a fresh clone. `make help` lists them.

PYTHON := .venv/bin/python
# What the Makefile runs needs no accelerator; torch then need not look for one.
export TOKENIZERS_PARALLELISM := false
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO := 0

.DEFAULT_GOAL := help
.PHONY: help setup weights demo serve test soak lint type format audit docs bench bench-gpu clean lock

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# --- environment -------------------------------------------------------------------------------------------------

setup: .venv/installed ## build .venv from requirements.lock (uv when present, else fetched with pip)

.venv/installed: requirements.lock setup.sh
	@sh setup.sh
	@touch $@

lock: ## resolve pyproject.toml anew into requirements.lock
	.venv/uv pip compile pyproject.toml --group dev --python-version 3.12 --no-header --no-emit-index-url \
	    --no-emit-find-links --upgrade -q -o requirements.lock

weights: .venv/installed ## fetch the embedded default weights into the cache, each checked against its sha256
	@$(PYTHON) -m models.weights fetch

# --- use ---------------------------------------------------------------------------------------------------------

DEMO := out/demo

demo: weights ## real video to masks, hands and a report you can open
	@$(PYTHON) -m data_jobs.egoworld.demo --output $(DEMO)/videos
	@$(PYTHON) -m data_jobs.egoworld run --input $(DEMO)/videos --config configs/egoworld_demo.yaml \
	    --output $(DEMO) --run-id demo
	@$(PYTHON) -m data_jobs.egoworld report --run $(DEMO)/run_id=demo

# Ray lowers its workers' priority, which is right for batch and wrong for a live service.
serve: export RAY_worker_niceness := 0
serve: weights ## tracker, policy and control as a live service: http://127.0.0.1:8000
	@.venv/bin/serve run configs/serve_cpu.yaml

# --- checks ------------------------------------------------------------------------------------------------------

test: .venv/installed ## everything that needs no GPU, hub, arm or patience
	@$(PYTHON) -m pytest -m "not gpu and not hub and not hardware and not slow" --durations=10

KILLS := 50

soak: .venv/installed ## KILLS=50 kills of anything at any time; the result must be that of an undisturbed run
	@$(PYTHON) -m tests.faults.soak --kills $(KILLS)

lint: .venv/installed ## ruff: rules and format
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .

format: .venv/installed ## let ruff mend what it can
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

type: .venv/installed ## mypy over our folders
	@$(PYTHON) -m mypy actors models data_jobs robot serve train_jobs

audit: .venv/installed ## known vulnerabilities of what requirements.lock pins (asks PyPI; nothing is installed into .venv)
	@.venv/uv tool run --quiet pip-audit==2.* --requirement requirements.lock --no-deps --disable-pip --strict

docs: .venv/installed ## write the pages of docs/ that follow from the code: architecture, formats, licences
	@$(PYTHON) -m docs.generate

bench: weights ## side-by-side measurements in pairs, written to docs/measured.md
	@$(PYTHON) -m benchmarks

bench-gpu: weights ## the same where there is a GPU: tracker, acquisition, depth, segmentation, egoworld; to docs/gpu.md
	@$(PYTHON) -m benchmarks.gpu

clean: ## remove what the targets made, but not the weights cache
	rm -rf .venv out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
