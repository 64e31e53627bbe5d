# The same verbs locally and in CI. Everything runs from .venv, which each verb makes by itself
# (`make setup`) with Python 3.11+ alone: uv is taken from the path, or installed into .uv.

BIN := .venv/bin
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo .uv/bin/uv)
EXTRAS := --extra dev --extra experts --extra diffusers --extra export --extra hub --extra ray

.PHONY: setup demo test check bench gpu-smoke

setup: .venv/.up-to-date

.venv/.up-to-date: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --frozen $(EXTRAS)
	@touch $@

.uv/bin/uv:
	@python3 -m venv .uv
	@.uv/bin/pip install --quiet uv

# The whole path in the embedded world, about twelve minutes on 2 cores.
demo: setup
	$(BIN)/cliptex demo

test: setup
	$(BIN)/pytest -q

check: setup
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/pytest -q tests/test_layers.py

bench: setup
	@set -e; for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script; done

# The engine's own checks on a CUDA machine: bf16, fp16, compile, and DDP and FSDP2 over NCCL.
gpu-smoke: setup
	$(BIN)/python benchmarks/gpu_smoke.py
