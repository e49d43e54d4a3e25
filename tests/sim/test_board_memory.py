"""A board's memory controller with its PHY and a chip at its pins, started and leveled by the host's own code."""

import functools

import pytest

from sterna.errors import DeviceError, SternaError
from sterna.link.dram import DramController
from sterna.spec.board import OFFSET
from sterna.spec.dfi import DfiControl
from sterna.spec.link import Kind, Space
from sterna_boards.boards import find_board
from sterna_sim.board.build import board_core, core_library
from sterna_sim.board.twin import CYCLE_TICKS, Twin, Wiring

BOARD = find_board("ecpix5")
READY_CYCLES = 60_000  # from configuration until the clocks run


@functools.cache
def core():
    return board_core(BOARD)


def register(name):
    return core().registers[name][0]


class ControlPort:
    """In place of a link's client: requests to the controller alone, and the cycles that a board would count."""

    def __init__(self, wiring):
        self.twin = Twin(core_library(core()), recipe=BOARD.recipe, core=core(), baud=1_000_000, wiring=wiring)
        self.twin.run(READY_CYCLES * CYCLE_TICKS)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        if request.space is Space.BOARD:
            assert request.address == OFFSET["CYCLES"]
            self.twin.run(1000 * CYCLE_TICKS)
            return (self.twin.now // CYCLE_TICKS).to_bytes(4, "little")
        assert request.space is Space.DRAM
        places = range(request.address, request.address + request.length, 4)
        if request.kind is Kind.READ:
            return b"".join(self.twin.control(place).to_bytes(4, "little") for place in places)
        for place in places:
            at = place - request.address
            self.twin.control(place, int.from_bytes(request.payload[at : at + 4], "little"))
        return b""


def controller(**wiring):
    port = ControlPort(Wiring(**wiring))
    top = BOARD.top(core=core(), build_id=0)
    return port, DramController(port, top.description)


@pytest.mark.parametrize("flight", [(0, 1), (2, 3), (4, 0)])
def test_each_lane_has_a_window_of_three_delays_where_its_wiring_puts_it(flight):
    port, dram = controller(flight=flight)
    windows = dram.start()
    assert [(window.first, window.width, window.bitslip) for window in windows] == [(late, 3, 0) for late in flight]
    assert port.twin.control(register("ddrctrl_init_done")) == 1


@pytest.mark.parametrize(
    ("lane", "wiring"),
    [(0, {"flight": (9, 2)}), (1, {"flight": (2, 9)}), (1, {"dead_lanes": frozenset({1})}), (0, {"flight": (5, 2)})],
)
def test_a_lane_without_a_window_is_named(lane, wiring):
    port, dram = controller(**wiring)
    with pytest.raises(DeviceError, match=f"byte lane {lane} of the DRAM has no window"):
        dram.start()
    done, error = (port.twin.control(register(f"ddrctrl_init_{name}")) for name in ("done", "error"))
    assert (done, error) == (0, 1)


def test_the_chip_wants_its_time_to_start():
    port, _ = controller()
    control = register("sdram_dfii_control")
    port.twin.control(control, DfiControl(0))
    port.twin.run(1000 * CYCLE_TICKS)
    with pytest.raises(DeviceError, match="CKE low for less than 500 us"):
        port.twin.control(control, DfiControl.CKE)
        port.twin.run(10 * CYCLE_TICKS)


def test_the_chip_wants_its_modes_before_its_rows():
    port, dram = controller()
    port.twin.control(register("sdram_dfii_control"), DfiControl.CKE)
    with pytest.raises(DeviceError, match="before mode registers"):
        dram._lanes_right()


def test_bad_wiring_is_refused():
    for wiring in ({"flight": (2,)}, {"flight": (2, 99)}, {"dead_lanes": frozenset({2})}):
        with pytest.raises(SternaError, match="byte lane"):
            Wiring(**wiring)
