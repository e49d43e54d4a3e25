"""What the generated gateware must not contain, and that every preset elaborates."""

import re
from collections import Counter

import pytest
from amaranth.back import rtlil

from sterna.spec.config import PRESETS, preset
from sterna_hw.accelerator import Accelerator
from sterna_hw.lanes import TernaryLanes


def cells(component) -> Counter[str]:
    """Cells of the elaborated component by type, multiplications and divisions by constants included."""
    return Counter(re.findall(r"^\s*cell \$(\w+) ", rtlil.convert(component), re.MULTILINE))


def test_the_ternary_path_has_no_multiplier():
    found = cells(TernaryLanes(config=preset("sim-small")))
    assert found["add"] > 0
    assert not {"mul", "divfloor", "modfloor", "div", "mod"} & found.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_elaborates_without_dividers(name):
    found = cells(Accelerator(config=preset(name)))
    assert found["mul"] > 0
    assert not {"divfloor", "modfloor", "div", "mod"} & found.keys()
