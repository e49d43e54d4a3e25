"""The documents agree with the code."""

import re
import shlex
from pathlib import Path

from sterna.cli.main import make_parser
from sterna.link import client
from sterna.link import tables as link_tables
from sterna.spec import link, numerics
from sterna.spec.tables import render

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def test_tables_of_the_program_document_come_from_the_specification():
    text = (DOCS / "program.md").read_text()
    assert render(text) == text, "run `make docs`"


def test_tables_of_the_link_document_come_from_the_specification():
    text = (DOCS / "link.md").read_text()
    assert render(text, link_tables.TABLES) == text, "run `make docs`"
    assert set(re.findall(r"<!-- (\w+) -->\n\|", text)) == set(link_tables.TABLES)
    assert f"{link.USB_VENDOR:04x}:{link.USB_PRODUCT:04x}" in text
    assert f"up to {link.WINDOW} requests" in text and f"(at most {link.PAYLOAD_BYTES})" in text
    assert f"({client.TIMEOUT:g} s of silence)" in text and client.ATTEMPTS == 8


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


def test_python_of_the_readme_prints_text(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(code.replace("tokens=40", "tokens=5"), names)
    assert re.fullmatch(r"[\w ,.'\"-]{5,}", capsys.readouterr().out)
    assert names["logits"].shape == (3, 4096)


def test_commands_of_the_readme_are_accepted():
    lines = re.findall(r"^    (sterna [^#\n]*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        arguments = shlex.split(line)[1:]
        make_parser(arguments).parse_args(arguments)
