"""Carry chains of an ECP5 netlist without the slices that nextpnr adds at their ends.

nextpnr 0.11 begins a chain whose CIN is connected, be it to a constant, with a CCU2C that feeds it in, and ends one
whose last COUT has a net, be it without users, with a CCU2C that brings it out: four LUT sites a chain, a third of a
narrow adder. Both can be had for one LUT at most.

The end: the connection goes. The beginning: with a constant carry in, the lowest bit has a sum and a carry that are
functions of its two operands alone. The sum, where it is used, moves to a LUT; the lower half of the first CCU2C keeps
the carry only, made so that it does not depend on CIN, and CIN is left open.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

Netlist = dict[str, Any]  # what Yosys writes with write_json

_CONSTANTS = ("0", "1")


def trim(netlist: Netlist, top: str) -> int:
    """Trim the carry chains of the flat module ``top`` in place; gives the number of LUT sites saved."""
    module = netlist["modules"][top]
    cells = module["cells"]
    used = Counter(
        bit
        for cell in cells.values()
        for port, bits in cell["connections"].items()
        if cell["port_directions"][port] != "output"
        for bit in bits
    )
    used.update(bit for port in module["ports"].values() for bit in port["bits"])
    saved = 0
    for name, cell in [each for each in cells.items() if each[1]["type"] == "CCU2C"]:
        saved += 2 * _open_end(cell, used)
        if _independent_start(cell):
            saved += 2
            sums = cell["connections"]["S0"]
            if any(used[bit] for bit in sums):
                saved -= 1
                cells[f"{name}_S0_LUT4"] = _lowest_sum(cell)
            _carry_only(cell)
    return saved


def _open_end(cell: Netlist, used: Counter[Any]) -> bool:
    """Take a COUT without users away."""
    connections = cell["connections"]
    if used[connections["COUT"][0]]:
        return False
    connections["COUT"] = ["x"]
    return True


def _independent_start(cell: Netlist) -> bool:
    """The cell begins a chain, and the functions of its lower half are those of A0 and B0 alone."""
    constant = all(cell["connections"].get(port, [None])[0] in _CONSTANTS for port in ("CIN", "C0", "D0"))
    return constant and cell["parameters"]["INJECT1_0"] == "NO"


def _functions(cell: Netlist) -> tuple[list[int], list[int]]:
    """Sum and carry of the lower half for (B0, A0) = 0 to 3, as Lattice's model of CCU2C has them."""
    table = int(cell["parameters"]["INIT0"], 2)
    carry_in, c, d = (int(cell["connections"][port][0]) for port in ("CIN", "C0", "D0"))
    propagate = [table >> (d << 3 | c << 2 | operands) & 1 for operands in range(4)]
    generate = [table >> operands & 1 for operands in range(4)]
    sums = [bit ^ carry_in for bit in propagate]
    carries = [carry_in if through else made for through, made in zip(propagate, generate, strict=True)]
    return sums, carries


def _word(bits: list[int], width: int) -> str:
    """Bits, the lowest first, as a parameter of ``width`` bits."""
    return "".join(str(bit) for bit in reversed(bits)).rjust(width, "0")


def _lowest_sum(cell: Netlist) -> Netlist:
    """A LUT that drives the sum of the lower half."""
    connections = cell["connections"]
    return {
        "hide_name": 0,
        "type": "LUT4",
        "parameters": {"INIT": _word(_functions(cell)[0] * 4, 16)},
        "attributes": {},
        "port_directions": {"A": "input", "B": "input", "C": "input", "D": "input", "Z": "output"},
        "connections": {"A": connections["A0"], "B": connections["B0"], "C": ["0"], "D": ["0"], "Z": connections["S0"]},
    }


def _carry_only(cell: Netlist) -> None:
    """With C0 and D0 high the half never propagates: its carry is the lowest bits of the table, whatever CIN is."""
    cell["parameters"]["INIT0"] = _word(_functions(cell)[1], 16)
    cell["connections"] |= {"C0": ["1"], "D0": ["1"], "CIN": ["x"], "S0": ["x"]}
