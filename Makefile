# The two commands are `make lab` and `make test`; `make help` lists them all.
PYTHON ?= python3
# Words added to the command line of `make lab` or `make test`: ARGS=--no-browser, ARGS="-k conv".
ARGS ?=

VENV  := .venv
PY    := $(VENV)/bin/python
# Newer than pyproject.toml when .venv holds what pyproject.toml asks for.
READY := $(VENV)/.ready
# The peers of `make bench`, apart from what the course needs. A plain `torch` may be a GPU build of several GB.
BENCH := .venv-bench
TORCH ?= torch==2.13.0
# A shell's MPLBACKEND=Agg would leave the notebooks without pictures.
INLINE := MPLBACKEND=module://matplotlib_inline.backend_inline

NOTEBOOKS = $(wildcard course/*.ipynb)
# The long ones first, so that no worker waits for the other at the end.
LONGEST = course/04_cnn_lenet.ipynb course/05_gpu_kernels.ipynb course/06_alexnet_cifar.ipynb

.DEFAULT_GOAL := help
.PHONY: help venv lab test course outputs wheel bench format clean distclean

help: ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

venv: $(READY) ## make .venv with clnn and all the course and the tests need (PYTHON=python3.12 picks the Python)

$(READY): pyproject.toml
	@command -v '$(PYTHON)' > /dev/null || { echo 'clnn: no $(PYTHON) here. Install Python 3.11 or newer, or name one: make venv PYTHON=/path/to/python3' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "clnn: needs Python 3.11 or newer, and $(PYTHON) is $$('$(PYTHON)' --version 2>&1). Install a newer one and name it: make venv PYTHON=python3.12" >&2; exit 1; }
	@# Asking pip, not the folder: a half-made or moved .venv is made anew.
	@$(PY) -m pip --version > /dev/null 2>&1 || '$(PYTHON)' -m venv --clear $(VENV) || { rm -rf $(VENV); echo 'clnn: $(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: sudo apt install python3-venv' >&2; exit 1; }
	@echo 'Installing clnn and the course into $(VENV) (about 1 GB, a few minutes the first time)'
	$(PY) -m pip install --disable-pip-version-check --editable '.[course,test]'
	@touch $@

lab: venv ## open JupyterLab on the course (ARGS=--no-browser on a remote machine)
	$(PY) -m jupyterlab $(ARGS) course/

test: venv ## check style, run the tests, run every notebook and compare its outputs (ARGS="-k conv" picks tests)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(INLINE) $(PY) -m pytest -p no:cacheprovider --numprocesses=2 --dist=loadfile --no-loadscope-reorder --nbval --nbval-current-env --nbval-cell-timeout=300 $(ARGS) tests $(filter $(LONGEST),$(NOTEBOOKS)) $(filter-out $(LONGEST),$(NOTEBOOKS))

course: venv ## run every notebook without a browser, as HTML pages in build/course (CLNN_FULL=1: the long form)
	@test -n '$(NOTEBOOKS)' || { echo 'clnn: no notebook in course/' >&2; exit 1; }
	$(INLINE) $(PY) -m nbconvert --to html --execute --embed-images --ExecutePreprocessor.timeout=-1 --output-dir build/course $(NOTEBOOKS)

outputs: venv ## run every notebook and store its outputs in it (NOTEBOOKS=course/04_cnn_lenet.ipynb: this one)
	$(INLINE) $(PY) -m nbconvert --to notebook --inplace --execute --ExecutePreprocessor.timeout=-1 --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False $(NOTEBOOKS)

wheel: venv ## build dist/clnn-*.whl
	$(PY) -m build --wheel --no-isolation --outdir dist

$(BENCH)/.ready: pyproject.toml
	@$(BENCH)/bin/python -m pip --version > /dev/null 2>&1 || '$(PYTHON)' -m venv --clear $(BENCH)
	$(BENCH)/bin/python -m pip install --disable-pip-version-check --editable '.[bench]' '$(TORCH)'
	@# CLBlast has no wheel: on Debian and Ubuntu its package is unpacked here, without root; elsewhere do without.
	@cd $(BENCH) && apt-get download -qq libclblast1 ocl-icd-libopencl1 2> /dev/null && for p in *.deb; do dpkg-deb -x $$p debian; done || echo 'clnn: no CLBlast here, its column stays empty'
	@touch $@

bench: $(BENCH)/.ready ## install the peers in .venv-bench, measure clnn beside them, remake benchmarks/README.md
	CLNN_CLBLAST="$${CLNN_CLBLAST:-$$(ls $(BENCH)/debian/usr/lib/*/libclblast.so.1 2> /dev/null)}" $(BENCH)/bin/python -m clnn bench --json benchmarks/results
	$(BENCH)/bin/python -m clnn bench --report benchmarks

format: venv ## put code and notebooks into the house style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## remove what was built, but not .venv
	rm -rf build dist .hypothesis .pytest_cache .ruff_cache
	find clnn tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv and .venv-bench too
	rm -rf $(VENV) $(BENCH)
