PYTHON ?= python3
BIN := .venv/bin
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.venv/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than Python 3.11: make PYTHON=/path/to/python3.11"; exit 2; }
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) .venv \
		&& uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt -e '.[dev]'; \
	else \
		$(PYTHON) -m venv .venv \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e '.[dev]'; \
	fi
	@touch $@

demo: .venv/.installed ## Draw data, train, evaluate and show detections
	@rm -rf runs/demo
	$(BIN)/python train.py --config configs/shapes.yaml --run runs/demo
	$(BIN)/python eval.py runs/demo
	$(BIN)/python scripts/predict.py runs/demo --split val --count 12 --out runs/demo/pictures
	@echo "Ground truth beside detections: runs/demo/pictures/sheet.png"

test: .venv/.installed ## Run the fast tests
	$(BIN)/python -m pytest -q -m "not slow" $(PARALLEL)

test-all: .venv/.installed ## Run all tests: memorizing, two processes, compilation, parity
	$(BIN)/python -m pytest -q $(PARALLEL)

check: .venv/.installed ## Lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed ## Format all code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment and caches; data sets and runs stay
	rm -rf .venv .ruff_cache .mypy_cache build *.egg-info
