"""Writes the tables of docs/program.md from the specification: ``python -m sterna.spec.tables docs/program.md``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sterna.spec import isa, registers
from sterna.spec.config import PRESETS


def table(header: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    written = [tuple(cell.replace("|", "\\|") for cell in line) for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, tuple("---" for _ in header), *written))


def descriptor_table() -> str:
    """Fields of a descriptor."""
    lines = [(f"{f.offset}", f"{f.width}{' signed' * f.signed}", f"`{f.name}`", f.doc) for f in isa.FIELDS]
    return table(("bit", "width", "field", "meaning"), lines)


def opcode_table() -> str:
    """Opcodes and row operations with their numbers."""
    lines = [(str(op.value), f"`{op.name}`") for op in isa.Opcode]
    rows = [(str(op.value), f"`{op.name}`") for op in isa.RowOp]
    return table(("opcode", "name"), lines) + "\n\n" + table(("row_op", "name"), rows)


def register_table() -> str:
    """The register map."""
    lines = [(f"0x{r.offset:02X}", f"`{r.name}`", r.access.value, r.doc) for r in registers.registers_of(1)]
    for first in (registers.token_register(1), registers.sampled_register(1), registers.slot_register(0)):
        register = registers.REGISTERS_BY_NAME[first]
        name, number = first.split("_")
        start = f"0x{register.offset - 4 * int(number):02X} + 4n"
        lines.append((start, f"`{name}_n`", register.access.value, registers.SLOT_DOC[name]))
    return table(("offset", "register", "access", "meaning"), lines)


def bit_table() -> str:
    """Bits of CONTROL, STATUS and SLOT_n, values of ERROR_CAUSE."""
    registers_of_bits = (("CONTROL", registers.Control), ("STATUS", registers.Status), ("SLOT_n", registers.SlotMode))
    bits = [
        (f"`{name}`", str(flag.bit_length() - 1), f"`{flag.name}`")
        for name, flags in registers_of_bits
        for flag in flags
    ]
    causes = [(str(cause.value), f"`{cause.name}`", registers.ERROR_TEXT[cause]) for cause in registers.ErrorCause]
    return table(("register", "bit", "name"), bits) + "\n\n" + table(("ERROR_CAUSE", "name", "meaning"), causes)


def preset_table() -> str:
    """The named configurations."""
    names = list(PRESETS["sim-small"].__dataclass_fields__)[1:]
    lines = [(f"`{name}`", *(str(getattr(preset, name)) for preset in PRESETS.values())) for name in names]
    return table(("parameter", *(f"`{name}`" for name in PRESETS)), lines)


TABLES: dict[str, Callable[[], str]] = {
    "descriptor": descriptor_table,
    "opcodes": opcode_table,
    "registers": register_table,
    "bits": bit_table,
    "presets": preset_table,
}


def render(text: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """``text`` with the part between each ``<!-- NAME -->`` and ``<!-- end -->`` made anew by ``tables[NAME]``."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{tables[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(render(path.read_text()))
