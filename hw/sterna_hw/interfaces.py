"""Signatures and payloads that more than one component uses; widths come from the specification."""

from __future__ import annotations

from amaranth import signed, unsigned
from amaranth.hdl import ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from sterna.spec import isa, numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.registers import SlotMode


class MemoryRead(wiring.Signature):
    """Read port from the reader's side: ``data`` belongs to the ``address`` of the last cycle with ``enable``.

    Latency one cycle; ``data`` is held while ``enable`` is low.
    """

    def __init__(self, depth: int, shape: ShapeLike) -> None:
        super().__init__({"address": Out(ceil_log2(depth)), "enable": Out(1), "data": In(shape)})


class MemoryWrite(wiring.Signature):
    """Write port from the writer's side: ``data`` is stored at ``address`` in a cycle with ``enable``."""

    def __init__(self, depth: int, shape: ShapeLike) -> None:
        super().__init__({"address": Out(ceil_log2(depth)), "enable": Out(1), "data": Out(shape)})


def word_shape(config: HardwareConfig) -> data.ArrayLayout:
    """One word of the stream: ``word_bytes`` bytes, byte 0 (lowest address) first."""
    return data.ArrayLayout(unsigned(8), config.word_bytes)


def slot_mode(config: HardwareConfig) -> data.StructLayout:
    """What a slot does in a token: ``SlotMode``, and the number of the slot for MOVED."""
    flags = {mode.name.lower(): 1 for mode in SlotMode if mode.name}
    return data.StructLayout({**flags, "source": ceil_log2(config.slots)})


def token_request(config: HardwareConfig) -> data.StructLayout:
    """What the host's registers say about the token to run."""
    return data.StructLayout(
        {
            "modes": data.ArrayLayout(slot_mode(config), config.slots),
            "tokens": data.ArrayLayout(32, config.slots),
            "prefix": 1,
            "vocabulary": 32,
            "program_address": 64,
            "program_beats": 32,
            "embed_address": 64,
            "embed_beats": 32,
        }
    )


def segment(config: HardwareConfig) -> data.StructLayout:
    """A stretch of memory to stream: byte address (a multiple of the beat) and length in beats."""
    return data.StructLayout({"address": config.address_width, "beats": 32})


def logit(config: HardwareConfig) -> data.StructLayout:
    """One logit a slot; ``last`` marks the last of a descriptor."""
    return data.StructLayout({"values": row_values(config), "last": 1})


def row_sum(config: HardwareConfig) -> data.StructLayout:
    """A finished row: one accumulator a slot; ``last`` marks the last row of a job."""
    return data.StructLayout({"sums": data.ArrayLayout(signed(numerics.ACC_WIDTH), config.slots), "last": 1})


def row_values(config: HardwareConfig) -> data.ArrayLayout:
    """One element of a result vector: a 24-bit value a slot."""
    return data.ArrayLayout(signed(numerics.VALUE_WIDTH), config.slots)


def lanes_job() -> data.StructLayout:
    """What the lanes need to know of a MATMUL."""
    fields = isa.FIELDS_BY_NAME
    return data.StructLayout(
        {"rows": fields["count"].width, "blocks": fields["blocks"].width, "tails": fields["tails"].width}
    )


def generator_job() -> data.StructLayout:
    """What the generator needs to know of a MATMUL: its key, its first row, and how many rows of how many blocks."""
    fields = isa.FIELDS_BY_NAME
    return data.StructLayout(
        {
            "seed": 32,
            "stream": fields["eps_mantissa"].width,
            "row": fields["scale_mantissa"].width,
            "rows": fields["count"].width,
            "blocks": fields["generated"].width,
        }
    )


def row_job() -> data.StructLayout:
    """What the epilogue needs to know of a MATMUL or EMBED."""
    fields = isa.FIELDS_BY_NAME
    return data.StructLayout(
        {
            "row_op": isa.RowOp,
            "first": 1,
            "fresh": 1,  # the recurrent state counts as zero
            "source": fields["source"].width,
            "target": fields["target"].width,
            "param": fields["param"].width,
            "state": fields["state"].width,
            "shift": fields["shift"].width,
        }
    )


def row_scale(config: HardwareConfig) -> data.ArrayLayout:
    """The scale of the row sums, one a slot."""
    scale = data.StructLayout({"mantissa": numerics.SCALE_MANTISSA_BITS, "shift": 6})
    return data.ArrayLayout(scale, config.slots)


def vector_job() -> data.StructLayout:
    """What the vector unit needs to know of a SUMSQ or QUANT."""
    fields = isa.FIELDS_BY_NAME
    return data.StructLayout(
        {
            "quantise": 1,  # QUANT, else SUMSQ
            "ones": 1,
            **{
                name: fields[name].width
                for name in ("count", "source", "param", "eps_mantissa", "eps_shift", "eps_const")
            },
            "scale_mantissa": fields["scale_mantissa"].width,
            "scale_exponent": signed(fields["scale_exponent"].width),
        }
    )


def exchange_signature(config: HardwareConfig) -> wiring.Signature:
    """What the vector unit of a cluster exchanges with those of the others, seen from the cluster.

    An offer, S1 and S2 or the largest product, is held until ``agreed_valid``, and low for a cycle or more after it;
    what all clusters together have comes with that. ``share`` are this cluster's elements of a row of activations;
    ``gathered`` is the whole row, some cycles later, the same for all clusters.
    """
    squares = data.ArrayLayout(unsigned(numerics.SQUARES_WIDTH), 2)  # S1, S2
    share = data.ArrayLayout(unsigned(numerics.Q_WIDTH), config.vector_width)
    rows = config.activation_depth // config.word_bytes
    return wiring.Signature(
        {
            "offer_valid": Out(1),
            "offer_sums": Out(squares),
            "offer_top": Out(numerics.PRODUCT_BITS),
            "agreed_valid": In(1),
            "agreed_sums": In(squares),
            "agreed_top": In(numerics.PRODUCT_BITS),
            "share": Out(MemoryWrite(rows, share)),
            "gathered": In(MemoryWrite(rows, word_shape(config))),
        }
    )


def word_stream(config: HardwareConfig) -> stream.Signature:
    """The stream between memory and everything that eats it."""
    return stream.Signature(word_shape(config))
