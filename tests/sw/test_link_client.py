"""Frames and requests against a board in software, over links that lose, damage and repeat."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from boards import CUT, Faults, Frames, SlowPipe
from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.emulator.board import SoftwareBoard
from sterna.emulator.pipes import MemoryPipe
from sterna.errors import DeviceError, SternaError
from sterna.link.client import ATTEMPTS, LinkClient, Request, reads, write_words, writes
from sterna.link.clock import Stopwatch
from sterna.link.framing import Unframer, frame
from sterna.link.identity import read_identity
from sterna.link.pipe import BytePipe
from sterna.spec import board as board_spec
from sterna.spec import link
from sterna.spec.board import OFFSET, BoardDescription
from sterna.spec.link import Kind, Reply, Space

SCRATCH = OFFSET["SCRATCH"]
BYTES = st.one_of(st.binary(min_size=1, max_size=40), st.lists(st.sampled_from([0x7D, 0x7E, 0x5D, 0x5E, 0])).map(bytes))


@given(st.lists(BYTES.filter(bool), max_size=8), st.integers(1, 9))
def test_frames_come_back_in_pieces_of_any_size(bodies, size):
    stream = b"".join(map(frame, bodies))
    assert stream.count(link.FLAG) == 2 * len(bodies)
    unframer = Unframer()
    found = [body for start in range(0, len(stream), size) for body in unframer.feed(stream[start : start + size])]
    assert found == bodies


def test_a_frame_is_that_of_the_document():
    body = bytes([0x21, 0x7E, 0x7D, 0])
    crc = zlib.crc32(body).to_bytes(4, "little")
    escaped = b"".join(bytes([0x7D, b ^ 0x20]) if b in (0x7D, 0x7E) else bytes([b]) for b in body + crc)
    assert frame(body) == b"\x7e" + escaped + b"\x7e"


@given(st.binary(min_size=1, max_size=60), st.data())
def test_no_damaged_frame_is_taken_for_a_body(body, data):
    stream = bytearray(frame(body))
    place = data.draw(st.integers(1, len(stream) - 2))
    stream[place] ^= data.draw(st.integers(1, 255))
    assert body not in Unframer().feed(bytes(stream))


def test_noise_does_not_fill_memory():
    unframer = Unframer()
    for _ in range(100):
        assert unframer.feed(bytes(10_000)) == []
    assert len(unframer._rest) < 4096
    assert unframer.feed(b"\x7e" + frame(b"later")) == [None, b"later"]


def test_pieces_of_a_range_end_at_multiples_of_the_payload():
    pieces = list(reads(Space.MEMORY, 1000, 3000))
    assert [(piece.address, piece.length) for piece in pieces] == [(1000, 24), (1024, 1024), (2048, 1024), (3072, 928)]
    data = random.Random(1).randbytes(3000)
    assert b"".join(piece.payload for piece in writes(Space.MEMORY, 1000, data)) == data
    assert list(reads(Space.MEMORY, 5, 0)) == []


def started(board, *, pipe=MemoryPipe, **faults):
    """A client whose board has its memory opened without a start, before faults begin."""
    board.dram.write(board.description.dram.registers["ddrctrl_init_done"][0], 1)
    return LinkClient(pipe(board, **faults))


def test_more_requests_than_a_window_and_than_numbers():
    board = SoftwareBoard()
    client = started(board)
    data = random.Random(2).randbytes(700 * 64)
    client.execute(Request(Kind.WRITE, Space.CORE, 0x18, 4, struct.pack("<I", i)) for i in range(600))
    assert client.read_word(Space.CORE, 0x18) == 599
    assert client.repeats == 0
    client.write(Space.BOARD, SCRATCH, data[:4])
    assert client.read(Space.BOARD, SCRATCH, 4) == data[:4]


FAULTS = st.dictionaries(st.integers(0, 4000), st.sampled_from(["drop", "flip", "repeat"]), max_size=12)


@settings(max_examples=150, deadline=None)
@given(to_board=FAULTS, to_host=FAULTS, pipe=st.sampled_from([MemoryPipe, SlowPipe]))
def test_every_write_is_done_once_and_every_read_is_right_whatever_the_link_does_to_bytes(to_board, to_host, pipe):
    board = SoftwareBoard()
    client = started(board, pipe=pipe, to_board=Faults(to_board), to_host=Faults(to_host))
    values = list(range(1, 41))
    client.execute(write_words(Space.BOARD, SCRATCH, value) for value in values)
    assert client.read_word(Space.BOARD, SCRATCH) == values[-1]
    words = client.execute(Request(Kind.READ, Space.DESCRIPTION, at, 4) for at in range(0, 160, 4))
    assert b"".join(words) == board._text[:160]
    assert [entry for entry in board.executed if entry[0] is Kind.WRITE] == 40 * [(Kind.WRITE, Space.BOARD, SCRATCH, 4)]


@settings(max_examples=80, deadline=None)
@given(to_host=FAULTS)
def test_a_read_sees_the_writes_before_it_and_none_after(to_host):
    client = started(SoftwareBoard(), to_host=Faults(to_host))
    look = Request(Kind.READ, Space.BOARD, SCRATCH, 4)
    read = client.execute(
        request for value in range(20) for request in (write_words(Space.BOARD, SCRATCH, value), look)
    )
    assert [int.from_bytes(data, "little") for data in read[1::2]] == list(range(20))


WRITES = st.dictionaries(st.integers(0, 12), st.sampled_from(["drop", "repeat"]), max_size=6)


@settings(max_examples=100, deadline=None)
@given(to_board=WRITES, to_host=WRITES)
def test_lost_and_repeated_bursts(to_board, to_host):
    board = SoftwareBoard()
    client = started(board, to_board=Frames(to_board), to_host=Frames(to_host))
    for value in range(30):
        client.execute(write_words(Space.BOARD, SCRATCH, word) for word in range(value, value + 20))
        assert client.read_word(Space.BOARD, SCRATCH) == value + 19
    assert sum(entry[0] is Kind.WRITE for entry in board.executed) == 600


def test_a_clean_link_repeats_nothing_and_a_faulty_one_says_so():
    board = SoftwareBoard()
    client = started(board, to_board=Faults({200: "flip"}))
    client.execute(write_words(Space.BOARD, SCRATCH, value) for value in range(100))
    assert 1 <= client.repeats <= 2
    assert client.read_word(Space.BOARD, OFFSET["DAMAGED"]) >= 1


@pytest.mark.parametrize("pipe", [MemoryPipe, SlowPipe])
def test_one_lost_request_costs_one_repeat(pipe):
    """Each of the requests after it is answered SEQUENCE; only the first answer counts."""
    board, faults = SoftwareBoard(), Faults()
    client = started(board, pipe=pipe, to_board=faults)
    client.sync()
    size = len(frame(write_words(Space.BOARD, SCRATCH, 0).body(0)))
    faults.plan = dict.fromkeys(range(faults.passed + 3 * size, faults.passed + 4 * size), "drop")
    client.execute(write_words(Space.BOARD, SCRATCH, value) for value in range(40))
    assert client.repeats == 1
    assert len(board.executed) == 40


def test_a_lost_reply_is_noticed_by_the_next_one_without_waiting():
    board, faults, silent = SoftwareBoard(), Faults(), []

    class Counting(SlowPipe):
        def read(self, timeout):
            data = super().read(timeout)
            if not data:
                silent.append(timeout)
            return data

    client = started(board, pipe=Counting, to_host=faults)
    client.sync()
    faults.plan = dict.fromkeys(range(faults.passed + 30, faults.passed + 50), "drop")
    client.execute(write_words(Space.BOARD, SCRATCH, value) for value in range(40))
    assert client.repeats == 1 and not silent


def test_faults_far_apart_never_add_up_to_a_loss():
    client = started(SoftwareBoard(), to_board=Faults(dict.fromkeys(range(50, 10**6, 997), "flip")))
    client.execute(write_words(Space.BOARD, SCRATCH, value) for value in range(2000))
    assert client.repeats > 3 * ATTEMPTS


@pytest.mark.parametrize("place", [0, 30, 100, 171, 400])
def test_a_cut_link_is_an_error_with_cause(place):
    client = started(SoftwareBoard(), to_board=Faults({place: CUT}))
    with pytest.raises(DeviceError, match="cut"):
        client.execute(write_words(Space.BOARD, SCRATCH, value) for value in range(100))
    with pytest.raises(DeviceError, match="cut"):
        client.read_word(Space.BOARD, SCRATCH)


class Tape(BytePipe):
    """Answers what a function makes of the number of the read; counts what is asked."""

    def __init__(self, answer):
        self.answer, self.waited, self.written, self.reads = answer, 0.0, [], 0

    name = "tape"

    def read(self, timeout):
        data = self.answer(self.reads)
        self.reads += 1
        self.waited += 0 if data else timeout
        return data

    def write(self, data):
        self.written.append(data)

    def close(self):
        pass


def test_silence_ends_after_a_known_time():
    pipe = Tape(lambda _: b"")
    with pytest.raises(DeviceError, match=r"tape does not answer: check the cable.*sterna flash"):
        LinkClient(pipe, timeout=0.5).read_word(Space.BOARD, 0)
    assert pipe.waited == ATTEMPTS * 0.5


def test_endless_noise_ends_too():
    noise = random.Random(3)
    with pytest.raises(DeviceError, match="damages what it carries"):
        LinkClient(Tape(lambda _: noise.randbytes(5000))).read_word(Space.BOARD, 0)


def test_a_board_that_falls_silent_in_the_middle():
    board = SoftwareBoard()
    silent = []
    client = started(board, to_board=lambda data: b"" if silent else data)
    client.sync()
    silent.append(True)
    with pytest.raises(DeviceError, match="does not answer"):
        client.read_word(Space.BOARD, SCRATCH)
    silent.clear()
    assert client.read_word(Space.BOARD, 0) == board_spec.MAGIC  # the next use begins anew


def test_a_board_that_was_reset_says_so_and_the_next_use_works():
    boards = [SoftwareBoard()]
    client = LinkClient(MemoryPipe(boards[0]))
    client.execute(write_words(Space.BOARD, SCRATCH, value) for value in range(100))
    boards[0]._expected = 7
    with pytest.raises(DeviceError, match=r"lost count of the requests.*start again"):
        client.write_word(Space.BOARD, SCRATCH, 5)
    client.write_word(Space.BOARD, SCRATCH, 6)
    assert client.read_word(Space.BOARD, SCRATCH) == 6


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (Request(Kind.READ, Space.BOARD, 0x3C, 8), Reply.BAD_REQUEST),
        (Request(Kind.READ, Space.CORE, 2, 4), Reply.BAD_REQUEST),
        (write_words(Space.BOARD, OFFSET["MAGIC"], 1), Reply.BAD_REQUEST),
        (write_words(Space.DESCRIPTION, 0, 1), Reply.BAD_REQUEST),
        (write_words(Space.DRAM, 0x400, 1), Reply.BAD_REQUEST),
        (Request(Kind.READ, Space.MEMORY, 0, 4), Reply.NOT_READY),
        (write_words(Space.MEMORY, 0, 4), Reply.NOT_READY),
    ],
)
def test_refusals_are_told_and_harm_nothing(request_, status):
    client = LinkClient(MemoryPipe(SoftwareBoard()))
    with pytest.raises(DeviceError) as caught:
        client.execute([request_])
    assert link.REPLY_TEXT[status] in str(caught.value)
    client.write_word(Space.BOARD, SCRATCH, 6)
    assert client.read_word(Space.BOARD, SCRATCH) == 6


def test_a_refusal_whose_reply_was_lost_stays_one():
    """The first answer to the WRITE is dropped; the repeated request must not be answered OK."""
    client = LinkClient(MemoryPipe(SoftwareBoard(), to_host=Frames({1: "drop"})))
    with pytest.raises(DeviceError, match="not initialised"):
        client.write(Space.MEMORY, 0, b"x")


@pytest.mark.parametrize(
    "body", [b"\x09\x01\x00\x00", b"\x00\x01\x05\x00abc", b"\x00", b"\x00\x01\x00\x00"], ids=lambda body: body.hex()
)
def test_answers_by_other_rules_are_no_data(body):
    client = LinkClient(Tape(lambda _: frame(body)), timeout=0.01)
    client._synced, client._next = True, 1
    with pytest.raises(DeviceError):
        client.read_word(Space.BOARD, 0)


def test_identity():
    board = SoftwareBoard(build_id=0xABCD_0000_0000_0000_0000_0000_0000_1234)
    identity = read_identity(LinkClient(MemoryPipe(board)))
    assert identity.build == "abcd0000000000000000000000001234"
    assert identity.description == board.description
    assert identity.memory == board_spec.MemoryState.LOCKED


def test_another_device_is_no_board():
    board = SoftwareBoard()
    board._own["MAGIC"] = 0x1234
    with pytest.raises(DeviceError, match="no Sterna board answers at memory: MAGIC is 0x00001234"):
        read_identity(LinkClient(MemoryPipe(board)))
    board = SoftwareBoard()
    board._own["LINK_VERSION"] += 1 << 16
    with pytest.raises(DeviceError, match="version 2 of the link protocol, this host version 1"):
        read_identity(LinkClient(MemoryPipe(board)))


@pytest.mark.parametrize("damage", ["text", "length", "fields"])
def test_a_description_of_another_version_is_one_sentence(damage):
    board = SoftwareBoard()
    if damage == "text":
        board._text = board._text[:4] + bytes(len(board._text) - 4)
    elif damage == "length":
        board._text = b"\xff\xff\xff\xff"
    else:
        packed = zlib.compress(b'{"dram": {}}')
        board._text = struct.pack("<I", len(packed)) + packed + bytes(-len(packed) % 4)
    with pytest.raises(SternaError, match="build and flash it again"):
        read_identity(LinkClient(MemoryPipe(board)))


def test_descriptions_survive_packing():
    description = SoftwareBoard().description
    assert BoardDescription.unpack(description.pack()) == description


def test_the_stopwatch_counts_past_the_wrap():
    watch = Stopwatch()
    readings = [0xFFFF_FF00, 0xFFFF_FFFF, 0x10, 0x20]
    assert [watch.advance(value.to_bytes(4, "little")) for value in readings] == [0, 0xFF, 0x110, 0x120]
