"""Trimmed carry chains give what they gave, whatever an open carry in is: against Lattice's model of the cell."""

from __future__ import annotations

import copy
import random
from itertools import product
from typing import Any

from sterna_boards.carry import trim

INPUTS = {"A0": 2, "B0": 3, "A1": 4, "B1": 5, "C1": 6, "D1": 7}  # by port: bits of the module
OUTPUTS = {"S0": 8, "S1": 9, "COUT": 10}
Bits = dict[Any, int]


def chain(low: int, high: int, carry: str, c: str, d: str, inject: str = "NO", unused: str = "") -> dict[str, Any]:
    """A module of one cell, the beginning of a chain; nothing reads the outputs in ``unused``."""
    open_ports = {port: bit for port, bit in OUTPUTS.items() if port not in unused}
    connections = {port: [bit] for port, bit in {**INPUTS, **OUTPUTS}.items()}
    cell = {
        "type": "CCU2C",
        "parameters": {
            "INIT0": f"{low:016b}",
            "INIT1": f"{high:016b}",
            "INJECT1_0": inject,
            "INJECT1_1": "NO",
        },
        "port_directions": {
            **dict.fromkeys((*INPUTS, "C0", "D0", "CIN"), "input"),
            **dict.fromkeys(OUTPUTS, "output"),
        },
        "connections": {**connections, "C0": [c], "D0": [d], "CIN": [carry]},
    }
    ports = {"i": {"bits": list(INPUTS.values())}, "o": {"bits": list(open_ports.values())}}
    return {"modules": {"top": {"ports": ports, "cells": {"first": cell}}}}


def results(netlist: dict[str, Any], inputs: Bits, unknown: int) -> Bits:
    """Bits of the module's outputs; inputs that are left open are ``unknown``."""
    known: Bits = {"0": 0, "1": 1, "x": unknown, **inputs}
    for cell in netlist["modules"]["top"]["cells"].values():
        nets = {port: bits[0] for port, bits in cell["connections"].items()}
        value = {port: known[bit] for port, bit in nets.items() if cell["port_directions"][port] == "input"}

        def table(init: str, *address: int, value: Bits = value, cell: dict[str, Any] = cell) -> int:
            place = sum(bit << index for index, bit in enumerate(address))
            return int(cell["parameters"][init], 2) >> place & 1

        if cell["type"] == "LUT4":
            known[nets["Z"]] = table("INIT", *(value[port] for port in "ABCD"))
            continue
        carry, made = value["CIN"], {}
        for half in "01":
            four = table(f"INIT{half}", *(value[f"{port}{half}"] for port in "ABCD"))
            two = table(f"INIT{half}", value[f"A{half}"], value[f"B{half}"])
            injected = cell["parameters"][f"INJECT1_{half}"] == "YES"
            made[f"S{half}"] = four ^ (0 if injected else carry)
            carry = carry if four else (0 if injected else two)
        known |= {nets[port]: bit for port, bit in {**made, "COUT": carry}.items() if nets[port] != "x"}
    return {bit: known[bit] for bit in netlist["modules"]["top"]["ports"]["o"]["bits"]}


def check(netlist: dict[str, Any]) -> int:
    before = copy.deepcopy(netlist)
    saved = trim(netlist, "top")
    for values in product((0, 1), repeat=len(INPUTS)):
        inputs = dict(zip(INPUTS.values(), values, strict=True))
        expected = results(before, inputs, 0)
        assert results(netlist, inputs, 0) == results(netlist, inputs, 1) == expected
    return saved


def test_any_function_and_any_constant_carry() -> None:
    rng = random.Random(4)
    for carry, c, d in product("01", repeat=3):
        for _ in range(40):
            assert check(chain(rng.getrandbits(16), rng.getrandbits(16), carry, c, d)) == 1  # 2, less a LUT for S0


def test_outputs_that_nobody_reads() -> None:
    adder = 0x96AA
    assert check(chain(adder, adder, "0", "0", "1", unused="S0")) == 2
    assert check(chain(adder, adder, "1", "0", "1", unused="COUT")) == 3
    assert check(chain(adder, adder, "1", "0", "1", unused="S0 COUT")) == 4


def test_other_cells_stay() -> None:
    for kept in (chain(0x96AA, 0x96AA, "0", "0", "1", inject="YES"), chain(0x96AA, 0x96AA, "x", "0", "1")):
        before = copy.deepcopy(kept)
        assert trim(kept, "top") == 0 and kept == before
