"""The host link under Verilator: the endpoint with each width of memory, the choice of a link."""

from __future__ import annotations

import random

import pytest
from bench import run_bench

from sterna_hw.link.endpoint import Endpoint
from sterna_hw.link.select import LinkSelect

PATIENCE = 400
MEMORY_BYTES = 4 << 12
DESCRIPTION = random.Random(7).randbytes(1201)
BUILD_ID = 0x0123_4567_89AB_CDEF_0011_2233_4455_6677


def endpoint(data_bytes: int) -> Endpoint:
    return Endpoint(
        address_width=32,
        data_bytes=data_bytes,
        memory_bytes=MEMORY_BYTES,
        description=DESCRIPTION,
        build_id=BUILD_ID,
        patience=PATIENCE,
    )


@pytest.mark.parametrize("data_bytes", [4, 16, 64])
def test_link_endpoint(data_bytes: int) -> None:
    parameters = {"DATA_BYTES": data_bytes, "PATIENCE": PATIENCE, "MEMORY_BYTES": MEMORY_BYTES}
    run_bench(endpoint(data_bytes), "cocotb_link_endpoint", parameters={**parameters, "DESCRIPTION": DESCRIPTION.hex()})


def test_link_with_the_hosts_client() -> None:
    run_bench(endpoint(16), "cocotb_link_client", parameters={"MEMORY_BYTES": MEMORY_BYTES})


def test_link_select() -> None:
    run_bench(LinkSelect(links=2, stall_bits=8), "cocotb_link_select")
