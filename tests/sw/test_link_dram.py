"""Start of a DRAM, read leveling, and the memory test, on boards in software with windows and faults of their own."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from boards import open_board
from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.emulator.board import SoftwareBoard
from sterna.emulator.dram import software_dram
from sterna.emulator.pipes import MemoryPipe
from sterna.errors import DeviceError, SternaError
from sterna.link.client import LinkClient
from sterna.link.dram import NARROWEST, DramController, Window, widest
from sterna.link.memtest import BLOCK, check_memory
from sterna.spec.board import OFFSET, MemoryState
from sterna.spec.dfi import DfiCommand
from sterna.spec.link import Kind, Space

SMALL = 1 << 21


def controller(board: SoftwareBoard) -> DramController:
    return DramController(LinkClient(MemoryPipe(board)), board.description)


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("ranks", [1, 2])
def test_each_lane_gets_the_middle_of_its_window(lanes, ranks):
    windows = [(lane % 4, range(lane, lane + 2 + lane)) for lane in range(lanes)]
    board = SoftwareBoard(dram=software_dram(byte_lanes=lanes, ranks=ranks, size=SMALL), windows=windows)
    found = controller(board).start()
    assert found == tuple(Window(lane, slip, delays.start, len(delays)) for lane, (slip, delays) in enumerate(windows))
    assert board.dram.lanes == (True,) * lanes
    assert board.dram.started and board.dram.ready and not board.dram.failed
    assert [window.delay for window in found] == [lane + (1 + lane) // 2 for lane in range(lanes)]


def test_sdr_needs_the_sequence_only():
    board = SoftwareBoard(dram=software_dram("SDR", size=SMALL))
    assert controller(board).start() == ()
    assert board.dram.started and board.dram.ready
    issued = [entry for entry in board.executed if entry[:2] == (Kind.WRITE, Space.DRAM)]
    assert len(issued) < 20


def test_a_memory_is_started_again_from_any_state():
    board = SoftwareBoard(dram=software_dram(size=SMALL))
    first = controller(board).start()
    assert controller(board).start() == first
    assert board.dram.started


@pytest.mark.parametrize("change", ["order", "pause", "reset"])
def test_the_model_notices_a_wrong_start(change, monkeypatch):
    """Else the tests of the sequence could not fail."""
    board = SoftwareBoard(dram=software_dram("SDR", size=SMALL))
    told = board.description.dram
    steps = list(told.init_sequence)
    if change == "order":
        steps[1:3] = steps[2:0:-1]
    elif change == "pause":
        steps = [(*step[:4], 0) for step in steps]
    else:
        monkeypatch.setattr("sterna.link.dram.RESET_SECONDS", 0)
        board.dram._reset_cycles = 1 << 24
    described = dataclasses.replace(board.description, dram=dataclasses.replace(told, init_sequence=tuple(steps)))
    if change == "pause":  # a clock that stands still: no pause is there but those that are waited for
        now = [0]
        board.dram._cycles = lambda: now[0]
    DramController(LinkClient(MemoryPipe(board)), described).start()
    assert not board.dram.started


@pytest.mark.parametrize(
    ("windows", "lane", "told"),
    [
        ([(1, range(2, 5)), (2, range(0))], 1, "byte lane 0 delays 2 to 4 at bitslip 1; byte lane 1 none"),
        ([(3, range(7, 8)), (2, range(1, 5))], 0, "byte lane 0 delays 7 to 7 at bitslip 3; byte lane 1 delays 1 to 4"),
        ([(9, range(8)), (9, range(8))], 0, "byte lane 0 none; byte lane 1 none"),
    ],
)
def test_a_lane_without_a_window_is_named_and_the_memory_stays_closed(windows, lane, told):
    board = SoftwareBoard(dram=software_dram(size=SMALL), windows=windows)
    with pytest.raises(DeviceError) as caught:
        controller(board).start()
    assert f"byte lane {lane} of the DRAM has no window of {NARROWEST} delays" in str(caught.value)
    assert told in str(caught.value)
    assert board.dram.failed and not board.dram.ready


def test_a_lane_that_fails_after_it_was_set_is_refused(monkeypatch):
    board = SoftwareBoard(dram=software_dram(size=SMALL))
    dram = controller(board)
    right = dram._lanes_right
    calls = []

    def once_right():
        calls.append(1)
        return np.array([True, len(calls) <= 32]) & right()

    monkeypatch.setattr(dram, "_lanes_right", once_right)
    with pytest.raises(DeviceError, match="byte lane 1 of the DRAM"):
        dram.start()
    assert board.dram.failed and not board.dram.ready


def test_a_strobe_that_was_not_seen_counts_as_wrong(monkeypatch):
    """Data may be right by chance, or from the last read."""
    board = SoftwareBoard(dram=software_dram(size=SMALL))
    read = board.dram._read_burst

    def blind(burst):
        read(burst)
        board.dram._set("ddrphy_burstdet_seen", 0b10)

    monkeypatch.setattr(board.dram, "_read_burst", blind)
    with pytest.raises(DeviceError, match="byte lane 0 none; byte lane 1 delays 2 to 5"):
        controller(board).start()


@given(st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=4))
def test_widest_window(rows):
    best = max(
        ((end - first) * all(row[first:end]) for row in rows for first in range(8) for end in range(first + 1, 9)),
        default=0,
    )
    window = widest(0, np.array(rows))
    assert window.width == best
    if best:
        assert all(rows[window.bitslip][window.first : window.first + window.width])
        assert window.first <= window.delay < window.first + window.width
        assert abs((window.delay - window.first) - (window.first + window.width - 1 - window.delay)) <= 1


def test_of_equal_windows_the_first_is_taken():
    rows = np.array([[0, 1, 1, 0, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]], bool)
    assert widest(1, rows) == Window(1, 0, 1, 2)


def test_start_takes_few_round_trips():
    """A link may take a millisecond for each: a second in all is too long."""
    writes = []
    board = SoftwareBoard(dram=software_dram(size=SMALL))
    client = LinkClient(MemoryPipe(board, to_board=lambda data: (writes.append(data), data)[1]))
    board.dram._cycles = iter(range(0, 1 << 40, 1 << 20)).__next__  # pauses are over at once
    client.sync()
    writes.clear()
    DramController(client, board.description).start()
    assert len(writes) < 300


def test_two_ranks_never_read_at_once():
    board = SoftwareBoard(dram=software_dram(ranks=2, size=SMALL))
    commands = []
    access = board.dram._access
    board.dram._access = lambda *a: (commands.append(a), access(*a))[1]
    controller(board).start()
    reads = [place for flags, _, place, _ in commands if flags & DfiCommand.RDDATA]
    assert {rank for rank, _ in reads} == {DfiCommand.RANK_0, DfiCommand.RANK_1}
    # One command to both would come as two accesses in a row.
    assert not any(a[2] != b[2] and a[0] == b[0] for a, b in pairwise(commands))


def test_what_this_host_cannot_start_is_refused():
    board = SoftwareBoard()
    described = dataclasses.replace(board.description, dram=software_dram(ranks=3))
    with pytest.raises(DeviceError, match="3 ranks"):
        DramController(LinkClient(MemoryPipe(board)), described)
    registers = dict(board.description.dram.registers)
    del registers["sdram_dfii_pi1_wrdata"]
    described = dataclasses.replace(
        board.description, dram=dataclasses.replace(board.description.dram, registers=registers)
    )
    with pytest.raises(DeviceError, match="no register sdram_dfii_pi1_wrdata where"):
        DramController(LinkClient(MemoryPipe(board)), described).start()


@pytest.mark.parametrize("lanes", [2, 8])
def test_a_good_memory_passes_whole(lanes):
    moved = []

    class Bar:
        def update(self, n):
            moved.append(n)

        def close(self):
            moved.append("closed")

    size = SMALL // 8
    dram = software_dram(size=size, byte_lanes=lanes)
    with open_board(SoftwareBoard(dram=dram)) as transport:
        transport.test_memory(progress=lambda **_: Bar())
    assert moved[-1] == "closed" and sum(moved[:-1]) == 4 * size


@settings(max_examples=20, deadline=None)
@given(bit=st.integers(0, 127), value=st.integers(0, 1))
def test_a_stuck_data_bit_is_named_with_its_lane(bit, value):
    board = SoftwareBoard(dram=software_dram("SDR", size=SMALL), stuck=(bit, value))
    with pytest.raises(DeviceError) as caught:
        open_board(board)
    assert f"; bit {bit} of 128 data bits, in byte lane {bit // 8 % 2} of the chip" in str(caught.value)
    assert board.dram.failed and not board.dram.ready


@pytest.mark.parametrize("bit", range(4, 21))
def test_an_address_bit_without_effect_is_found_over_the_whole_size(bit):
    board = SoftwareBoard(dram=software_dram("SDR", size=SMALL), ignored=bit)
    with pytest.raises(DeviceError, match=f"addresses 0x0 and 0x{1 << bit:X} are one place"):
        open_board(board)


def test_a_fault_beyond_the_short_test_is_found_by_the_full_one():
    class Memory:
        def __init__(self):
            self.cells = bytearray(SMALL)

        def read_memory(self, address, size):
            return bytes(self.cells[address : address + size])

        def write_memory(self, address, data):
            self.cells[address : address + len(data)] = data
            if address <= 0x12_3456 < address + len(data):
                self.cells[0x12_3456] &= 0xFE

    dram = software_dram(size=SMALL)
    check_memory(Memory(), dram, range(BLOCK))
    with pytest.raises(DeviceError, match=r"first 0x123456 as 0x.* bit 48 of 128 data bits, in byte lane 0"):
        check_memory(Memory(), dram, range(SMALL))


def test_a_line_that_fails_only_when_it_stands_alone_is_found():
    """As a weak driver does; random bytes seldom ask for it."""

    class Memory:
        def __init__(self):
            self.cells = bytearray(SMALL)

        def read_memory(self, address, size):
            return bytes(self.cells[address : address + size])

        def write_memory(self, address, data):
            self.cells[address : address + len(data)] = data
            for beat in range(address, address + len(data), 16):
                if int.from_bytes(self.cells[beat : beat + 16], "little") == 1 << 77:
                    self.cells[beat : beat + 16] = bytes(16)

    with pytest.raises(DeviceError, match="; bit 77 of 128 data bits, in byte lane 1 of the chip"):
        check_memory(Memory(), software_dram(size=SMALL))


@pytest.mark.parametrize("part", [range(0, SMALL + 1), range(-1, 5), range(5, 2), range(0, 10, 2)])
def test_the_range_must_be_inside(part):
    with pytest.raises(SternaError, match="not inside the board's memory"):
        check_memory(None, software_dram(size=SMALL), part)  # type: ignore[arg-type]


def test_a_running_memory_is_left_alone_and_keeps_its_contents():
    board = SoftwareBoard(dram=software_dram(size=SMALL))
    with open_board(board) as transport:
        transport.write_memory(0x100, b"still here")
    board.executed.clear()
    with open_board(board) as transport:
        assert transport.identity.memory & MemoryState.READY
        assert transport.read_memory(0x100, 10) == b"still here"
    assert not any(entry[:2] == (Kind.WRITE, Space.DRAM) for entry in board.executed)


def test_a_memory_that_was_found_faulty_is_started_again():
    board = SoftwareBoard(dram=software_dram(size=SMALL))
    with open_board(board, memory_test="none"):
        controller(board).give_up()
    with open_board(board):
        assert board.dram.ready and not board.dram.failed


def test_a_memory_without_clock_is_refused(monkeypatch):
    board = SoftwareBoard(dram=software_dram(size=SMALL))
    read = board._read_own
    state = OFFSET["MEMORY_STATE"]
    monkeypatch.setattr(board, "_read_own", lambda address: 0 if address == state else read(address))
    with pytest.raises(DeviceError, match="clocks of the memory at memory do not run"):
        open_board(board)
