# SPDX-License-Identifier: Apache-2.0
# Each target sets up what it needs in .venv. Only what needs privilege is run through sudo, and
# for root nothing is.

python := .venv/bin/python
# The compiled kernel-side programs are part of the installation.
sources := pyproject.toml hatch_build.py $(wildcard bpf/*.[ch]) src/xdpkit/compiler.py \
	src/xdpkit/include/xdpkit.h $(wildcard src/xdpkit/examples/*.c)

.PHONY: help demo test check bench soak bless test-peers
help:
	@echo 'make demo        see xdpkit at work on a private pair of network namespaces'
	@echo 'make test        all tests; lists the peers that were missing'
	@echo 'make check       formatting, lints, types, layers'
	@echo 'make bench       load time, start-up time, memory, and what a packet costs, beside others'
	@echo 'make soak        the long tests'
	@echo 'make bless       rewrite the golden files; review the difference'
	@echo 'make test-peers  install from apt what the tests compare xdpkit with'

.venv/.installed: $(sources)
	@scripts/setup
	@touch $@

.venv/.installed-dev: $(sources)
	@scripts/setup dev
	@touch .venv/.installed $@

demo: .venv/.installed
	@scripts/as-root $(python) -m xdpkit demo

test: .venv/.installed-dev
	$(python) -m pytest --workers 2 tests/unit
	@scripts/as-root $(python) -m pytest --workers 2 tests/kernel

check: .venv/.installed-dev
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	.venv/bin/lint-imports

bench: .venv/.installed-dev
	@scripts/as-root $(python) bench/run.py

soak: .venv/.installed-dev
	@scripts/as-root $(python) -m pytest -m soak

bless: .venv/.installed-dev
	$(python) -m pytest -m golden --bless

test-peers:
	@scripts/test-peers
