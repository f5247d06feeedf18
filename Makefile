# demo             a stock i386 kernel against the 8 KiB and 4 KiB layouts of Linux 2.6, the running kernel, what each buys
# test             lint, every test on the compiled hot modules, the core tests again on the uncompiled ones
# lint             ruff, mypy --strict, the layer contract
# uncompiled-test  the core tests (no kernel needed, no long runs) on plain Python modules
# bench            page operations a second next to random reads; CPU time and memory next to objdump and
#                  checkstack.pl; how both grow; the largest HTML report in a browser (needs chromium, chromium-driver)
# fuzz             every parser on changed inputs for SECONDS in all (60); findings go to build/fuzz
# sanitize         the compiled modules' tests with every bound checked, and under AddressSanitizer (half an hour)
# docs             the site (build/site), manual page and shell completions (build/share, as below /usr/share)
# clean            everything built here; fetched kernels stay in .cache/kernels
#
# Needs make, gcc, python3-venv and python3-dev. PYTHON names another interpreter (3.11 or newer).

PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:

BIN := .venv/bin
HOT := src/stackfit/image/dwarf_units.py $(wildcard src/stackfit/isa/*_decode.py) src/stackfit/frames/track.py src/stackfit/calls/flow.py src/stackfit/bounds/longest.py src/stackfit/pages/replay_loop.py \
       $(addprefix src/stackfit/pages/,buddy.py zone.py reclaim.py compaction.py) \
       src/stackfit/machine/interrupts_loop.py $(wildcard src/stackfit/*/*.pxd)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Two at a time: tests of one file share what they load, up to 3 GB of it.
PARALLEL := -n 2 --dist loadfile
# With a compiler at hand an uncompiled module is a broken build; without one it is the supported slow way.
COMPILED := $(if $(shell command -v gcc),compiled)

.PHONY: demo test lint uncompiled-test fuzz sanitize bench docs clean

SECONDS := 60

demo: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh

test: lint
	STACKFIT_HOT_MODULES=$(COMPILED) $(BIN)/python -m pytest -rs $(PARALLEL)
	$(MAKE) --no-print-directory uncompiled-test
	$(MAKE) --no-print-directory fuzz

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A copy of the sources without extension modules, put before the installed package.
uncompiled-test: .venv/installed-dev
	rm -rf build/uncompiled
	mkdir -p build/uncompiled
	cp -R src build/uncompiled/src
	find build/uncompiled \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -rf {} +
	PYTHONPATH=build/uncompiled/src STACKFIT_HOT_MODULES=uncompiled $(BIN)/python -m pytest -rs $(PARALLEL) -m "not kernel and not slow"

# One seed: what `make test` finds it finds again. An hour of another one: make fuzz SECONDS=3600 SEED=7
SEED := 0
fuzz: .venv/installed-dev
	$(BIN)/python -m fuzz --seconds $(SECONDS) --seed $(SEED) --jobs 2

sanitize: .venv/installed-dev
	PYTHON=$(BIN)/python scripts/sanitize.sh

bench: .venv/installed
	$(BIN)/python benchmarks/allocator.py
	$(BIN)/python benchmarks/checkstack.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/html_report.py

docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	$(BIN)/python -m stackfit.cli.manual build/share

clean:
	rm -rf .venv build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -rf {} +

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

# An extension module hides the .py next to it, so a changed hot module means installing (compiling) again.
.venv/installed: .venv/pyvenv.cfg pyproject.toml setup.py $(HOT)
	$(PIP) -e .
	touch $@

.venv/installed-dev: .venv/pyvenv.cfg pyproject.toml setup.py $(HOT)
	$(PIP) -e '.[dev]'
	touch .venv/installed $@
