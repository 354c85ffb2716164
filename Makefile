# Set-up, demo, tests and formatting; `make` alone lists the targets.
#
# Each step of the set-up leaves a stamp in .venv, named after a checksum of the files that decide
# what is installed. A stamp is written after its step has succeeded, so an interrupted
# installation is taken up again and a finished one costs no call of pip.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
# Two pips at work on one environment, as under `make -j`, break it.
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check
INSTALL := $(PIP) install -c requirements/constraints.txt -c requirements/runtime.txt

DEMO_ARGS ?=
PYTEST_ARGS ?=
COVERAGE ?=

checksum = $(shell cat $(1) | cksum | cut -d ' ' -f 1)

BASE_FILES := $(addprefix requirements/,build.txt torch.txt mm.txt runtime.txt data.txt hub.txt \
	timm.txt constraints.txt) requirements.txt
TEST_FILES := $(addprefix requirements/,tests.txt onnx.txt transformers.txt)
PACKAGE_FILES := pyproject.toml mmmask3d/version.py tools/misc/mim_build.py

BASE_SUM := $(call checksum,$(BASE_FILES))
VENV_STAMP := $(VENV)/.stamp-venv
BASE_STAMP := $(VENV)/.stamp-base-$(BASE_SUM)
OPS_STAMP := $(VENV)/.stamp-ops-$(BASE_SUM)
DOCS_STAMP := $(VENV)/.stamp-docs-$(call checksum,requirements/docs.txt)
TEST_STAMP := $(VENV)/.stamp-tests-$(call checksum,$(TEST_FILES))
PACKAGE_STAMP := $(VENV)/.stamp-package-$(call checksum,$(PACKAGE_FILES))

MMCV := $(shell sed -n 's/^\(onedl-mmcv==[^ ;\#]*\).*/\1/p' requirements/mm.txt)

.PHONY: help
help: ## List the targets
	@echo 'usage: make TARGET [PYTHON=python3.11]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r name what; do printf '%-12s %s\n' "$$name" "$$what"; done

.PHONY: demo
demo: $(BASE_STAMP) $(PACKAGE_STAMP) ## Draw and fine-tune from the shipped encoder on generated rooms (DEMO_ARGS=...)
	$(PY) -m mmmask3d.preflight --for segmentation
	$(PY) tools/demo.py $(DEMO_ARGS)

.PHONY: test
test: $(BASE_STAMP) $(PACKAGE_STAMP) $(TEST_STAMP) $(OPS_STAMP) lint ## Lint, then run every test (PYTEST_ARGS=..., COVERAGE=1)
	$(PY) -m mmmask3d.preflight --for segmentation --for detection
	$(PY) -m pytest $(if $(COVERAGE),--cov) $(PYTEST_ARGS)

.PHONY: test-gpu
test-gpu: $(BASE_STAMP) $(PACKAGE_STAMP) $(TEST_STAMP) ## Run the tests that need an NVIDIA GPU
	CUBLAS_WORKSPACE_CONFIG=:4096:8 $(PY) -m pytest -m cuda $(PYTEST_ARGS)

.PHONY: lint
lint: $(BASE_STAMP) $(TEST_STAMP) ## Check style, formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(TEST_STAMP) ## Sort imports, apply safe fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: $(DOCS_STAMP) ## Build the docs as a site in site/, and check every link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

.PHONY: install
install: $(BASE_STAMP) $(PACKAGE_STAMP) ## Install the pinned stack into .venv and run nothing

.PHONY: install-ops
install-ops: $(OPS_STAMP) $(PACKAGE_STAMP) ## The same with mmcv's compiled ops, which detection needs

.PHONY: clean
clean: ## Remove caches and build output; .venv, data and work_dirs stay
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find configs mmmask3d tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove .venv as well
	rm -rf $(VENV) mmmask3d/.mim

$(VENV_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || { \
		echo "mmmask3d's pinned stack needs Python 3.10, 3.11 or 3.12, and '$(PYTHON)' is:" >&2; \
		$(PYTHON) --version >&2; \
		echo "Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(PIP) --version
	@touch $@

# PyTorch goes first, so that its pin decides. mmcv is installed on its own, without the pip cache
# and by force, since pip takes a wheel with ops built for another torch for the same thing; the
# ops, where they are wanted, follow in their own step.
# opencv-python needs libGL, which a machine without a display may lack; the headless build of the
# same version does not.
$(BASE_STAMP): $(VENV_STAMP)
	@rm -f $(VENV)/.stamp-base-* $(VENV)/.stamp-ops-* $(VENV)/.stamp-package-*
	$(INSTALL) -r requirements/build.txt
	$(INSTALL) -r requirements/torch.txt
	$(INSTALL) --force-reinstall --no-deps --no-cache-dir $(MMCV)
	$(INSTALL) -r requirements.txt
	@$(PY) -c 'import cv2' || \
		$(INSTALL) --force-reinstall --no-deps opencv-python-headless
	$(PY) -c 'import mmpretrain.models, mmseg.models, torchvision'
	@touch $@

$(TEST_STAMP): $(VENV_STAMP)
	@rm -f $(VENV)/.stamp-tests-*
	$(INSTALL) -r requirements/tests.txt -r requirements/onnx.txt
	$(PIP) install --no-deps --upgrade --target $(VENV)/transformers -r requirements/transformers.txt
	@touch $@

$(DOCS_STAMP): $(VENV_STAMP)
	@rm -f $(VENV)/.stamp-docs-*
	$(INSTALL) -r requirements/docs.txt
	@touch $@

$(PACKAGE_STAMP): $(BASE_STAMP)
	@rm -f $(VENV)/.stamp-package-*
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(OPS_STAMP): $(BASE_STAMP)
	@rm -f $(VENV)/.stamp-ops-*
	$(PY) tools/misc/build_mmcv_ops.py --install
	@touch $@
