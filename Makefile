# Every target sets up .venv from the pinned versions on first use, and again only when the pins change.
PYTHON ?= python3
PROMPT ?=
TOKENS ?= 32
CASES ?=
BOARD ?=
BIN := .venv/bin

.PHONY: sim test bench bitstream lint docs format clean

sim: .venv/sim.stamp ## text from the RTL, each integer checked against the golden model
	$(BIN)/python -m sterna_sim.demo --prompt "$(PROMPT)" --tokens $(TOKENS)

test: .venv/dev.stamp ## every test
	$(BIN)/python -m pytest tests -n 2

lint: .venv/dev.stamp ## style, types, and tables of the docs
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/bench.stamp ## whole tokens, slots, throughput, CPU engine: build/bench.json, .md, .png; CASES="..."
	$(BIN)/python -m sterna_sim.bench $(CASES)

bitstream: .venv/sim.stamp ## a bitstream that meets timing, and its report: build/bitstreams/BOARD/
	$(BIN)/python -m sterna_boards.flow $(BOARD)

docs: .venv/sim.stamp ## write the tables of docs/program.md and docs/link.md from the specification
	$(BIN)/python -m sterna.spec.tables docs/program.md
	$(BIN)/python -m sterna.link.tables docs/link.md

format: .venv/dev.stamp ## put the code into the house style
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean: ## remove everything that was built
	rm -rf .venv build

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/sim.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable ".[hw,bitstream]" && touch $@

.venv/bench.stamp: .venv/sim.stamp
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable ".[hw,bitstream,train]" && touch $@

.venv/dev.stamp: .venv/sim.stamp
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable ".[hw,bitstream,board,train,eval,dev]" && touch $@
