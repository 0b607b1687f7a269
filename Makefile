# Needs Python 3.11 or newer (with venv and pip) and make; the rest goes into $(VENV).
#
# On Linux, PyPI's torch brings CUDA along (gigabytes). For a machine without an NVIDIA GPU:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= output

RUN := "$(VENV)/bin/python"
export MPLBACKEND := Agg

.PHONY: help demo test processors lint types docs browser packaging oldest newest benchmark calibration clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

demo: $(VENV)/installed-plots  ## fit, predict and simulate; tables on screen, files in output/
	$(RUN) examples/demo.py --output "$(OUTPUT)"

test: $(VENV)/installed-test  ## run the tests, two at a time
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2

processors: $(VENV)/installed-test  ## run the tests of fits in the rounding of other processors
	OMP_NUM_THREADS=1 $(RUN) .ci/processors.py

lint: $(VENV)/installed-dev  ## check style, formatting and plain sentences
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) .ci/prose.py

types: $(VENV)/installed-dev  ## check the type annotations
	$(RUN) -m mypy

docs: $(VENV)/installed-dev  ## build the documentation in doc/_build/html
	rm -rf doc/api/generated doc/api/backreferences doc/gallery
	$(RUN) -W error -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning \
		-m sphinx -q -W --keep-going -E -b html doc doc/_build/html

browser: $(VENV)/installed-browser  ## look for flaws in the built documentation with a headless Chromium
	$(RUN) doc/browser.py

packaging:  ## build the distributions, and try them without and with each extra
	"$(PYTHON)" .ci/packaging

oldest:  ## run the tests with the oldest versions that pyproject.toml allows
	"$(PYTHON)" .ci/packaging oldest

newest:  ## run the tests with the newest releases of everything, on the Python that PYTHON names
	"$(PYTHON)" .ci/packaging newest

benchmark: $(VENV)/installed-benchmark  ## time sc_glm against other packages, those in R too if R has them
	$(RUN) doc/benchmarks/suite

calibration: $(VENV)/installed-plots  ## test and cover true values of simulated genes, as doc/calibration.rst shows
	OMP_NUM_THREADS=1 $(RUN) doc/calibration

clean:  ## remove the virtual environment and everything built
	rm -rf "$(VENV)" output build dist doc/_build doc/api/generated doc/api/backreferences doc/gallery
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache

# One virtual environment; a stamp for each extra that is installed in it.
$(VENV)/installed-%: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=...")'
	@echo 'Installing sc_glm[$*] in $(VENV); the first time takes a minute or more.'
	"$(PYTHON)" -m venv "$(VENV)"
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	touch "$@"
