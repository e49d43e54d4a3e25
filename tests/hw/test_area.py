"""LUT sites, block RAMs and multipliers that ``sterna explore`` expects, against a synthesis."""

from dataclasses import replace

import pytest

from sterna.errors import SternaError
from sterna.explore.area import LUT_TERMS, block_rams, lut_terms, multipliers
from sterna.spec.config import preset
from sterna_boards import area
from sterna_boards.area import Area, builds, errors, fit, measure, table

# No build of the fit.
CONFIG = replace(preset("ulx3s"), name="narrow", vector_width=1, beat_bytes=8, max_rows_per_word=2, state_depth=4096)
LARGEST = 0.08


def test_a_build_that_the_fit_has_not_seen(tmp_path):
    found = measure(CONFIG, tmp_path)
    assert abs(found.error) < LARGEST
    assert found.used["block RAMs"] == block_rams(CONFIG)
    assert found.used["multipliers"] == multipliers(CONFIG)
    assert f"| narrow | 40 | {found.sites:,} |" in table([found])


def test_the_fit_finds_the_weights():
    weights = dict(zip(LUT_TERMS, range(100, 800, 100), strict=True))
    areas = [
        Area(config, {"LUT sites": sum(weights[name] * term for name, term in lut_terms(config).items())})
        for config in builds()
    ]
    assert fit(areas) == pytest.approx(weights)
    assert max(map(abs, errors(areas))) < 1e-6
    areas[3].used["LUT sites"] *= 2
    assert max(map(abs, errors(areas))) > 0.2


def test_what_was_measured_is_kept(tmp_path, monkeypatch):
    calls = []

    def synthesise(*arguments, folder, **_):
        calls.append(arguments)
        (folder / "top.json").write_text('{"modules": {"top": {"cells": {"a.b": {"type": "LUT4"}}}}}')

    monkeypatch.setattr(area.tools, "run", synthesise)
    monkeypatch.setattr(area.rtlil, "convert", lambda *_, **__: "netlist")
    assert measure(CONFIG, tmp_path) == measure(CONFIG, tmp_path)
    assert len(calls) == 1 and measure(CONFIG, tmp_path).sites == 1


def test_what_fails_leaves_nothing(tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise SternaError("Yosys stumbled")

    monkeypatch.setattr(area.tools, "run", fails)
    monkeypatch.setattr(area.rtlil, "convert", lambda *_, **__: "netlist")
    assert area.main(["ulx3s", "--out", str(tmp_path)]) == 2
    assert "error: Yosys stumbled" in capsys.readouterr().err and not list(tmp_path.glob("*/used.json"))
    assert area.main(["ulx3s", "--fit", "--out", str(tmp_path)]) == 2
    assert "takes more than 1 builds" in capsys.readouterr().err
