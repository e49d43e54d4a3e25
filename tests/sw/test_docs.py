"""The documents agree with the code."""

from pathlib import Path

from sterna.spec import numerics
from sterna.spec.tables import render

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_tables_of_the_program_document_come_from_the_specification():
    text = (DOCS / "program.md").read_text()
    assert render(text) == text, "run `make docs`"


def test_formats_of_the_numerics_document_are_those_of_the_code():
    rows = {}
    for line in (DOCS / "numerics.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) >= 3:
            rows[cells[0]] = cells
    assert rows["y (gate input: f, i, g, gate, up)"][1:3] == [
        f"{numerics.VALUE_WIDTH} signed",
        str(numerics.GATE_IN_FRAC),
    ]
    assert rows["sigma, f"][2] == str(numerics.GATE_FRAC)
    assert rows["state h"][1:3] == [f"{numerics.VALUE_WIDTH} signed", str(numerics.STATE_FRAC)]
    assert rows["logit"][1:3] == [f"{numerics.VALUE_WIDTH} signed", str(numerics.LOGIT_FRAC)]
    assert rows["scale mantissa"][1] == f"{numerics.SCALE_MANTISSA_BITS} unsigned"
