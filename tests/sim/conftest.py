"""The stand-in's Verilog, once for all tests of this folder."""

from __future__ import annotations

from functools import cache

import pytest
from amaranth.back import verilog
from standin import StandIn

from sterna.spec.config import PRESETS, HardwareConfig
from sterna_sim.transport import VerilatorTransport


@cache
def _text(config: HardwareConfig) -> str:
    return verilog.convert(StandIn(config=config), name="sterna", strip_internal_attrs=True)


@pytest.fixture(scope="session")
def config() -> HardwareConfig:
    return PRESETS["sim-small"]


@pytest.fixture(scope="session")
def standin_verilog(config):
    return _text(config)


@pytest.fixture
def open_standin(config, standin_verilog):
    """Factory of transports to the stand-in; what a test leaves open is closed after it."""
    opened = []

    def open_one(**options) -> VerilatorTransport:
        transport = VerilatorTransport(config, verilog=standin_verilog, **options)
        opened.append(transport)
        return transport

    yield open_one
    for transport in opened:
        transport.close()
