"""Descriptors: the program that the compiler writes into memory and the sequencer runs (docs/program.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

DESCRIPTOR_BYTES = 32
ISA_VERSION = 2


class Opcode(IntEnum):
    """What a descriptor does. Zero is illegal so that blank memory stops the sequencer."""

    ILLEGAL = 0
    LOAD = 1  # the next words of the stream are parameters (16-bit) for parameter memory
    EMBED = 2  # the next words of the stream are embedding elements (16-bit), each treated as a row sum
    SUMSQ = 3  # S1 = sum of squares of a vector times its norm weights
    QUANT = 4  # largest |w*c|, then the scale, then 8-bit activations
    MATMUL = 5  # the next words of the stream are packed trits; every finished row goes through a row operation
    END = 6  # the token is done


class RowOp(IntEnum):
    """What happens to a row as it leaves the accumulators (docs/numerics.md, "Row operations")."""

    EMBED = 0
    FORGET = 1
    RECUR = 2
    OUTGATE = 3
    SILU = 4
    MUL = 5
    RESIDUAL = 6
    LOGIT = 7


@dataclass(frozen=True)
class Field:
    """One field of a descriptor: ``width`` bits at bit ``offset``, little-endian."""

    name: str
    offset: int
    width: int
    signed: bool
    doc: str


def _fields() -> tuple[Field, ...]:
    table = (
        ("opcode", 4, False, "Opcode"),
        ("row_op", 4, False, "RowOp of MATMUL and EMBED"),
        ("first", 1, False, "MATMUL, EMBED: clear S2 (if it feeds it) and the sampler (LOGIT) first"),
        ("ones", 1, False, "SUMSQ: norm weights are all one; `param` is not read"),
        ("reserved0", 6, False, "zero"),
        ("count", 16, False, "SUMSQ, QUANT: elements; MATMUL, EMBED: rows; LOAD: stream words; at least 1"),
        ("source", 16, False, "SUMSQ, QUANT: vector; MATMUL: operand vector of the row operation (element address)"),
        ("target", 16, False, "MATMUL, EMBED: result vector; LOAD: parameter address (element address)"),
        ("param", 16, False, "SUMSQ, QUANT: norm weights; MATMUL: lower bounds (element address in parameter memory)"),
        ("state", 24, False, "MATMUL: first element of the layer in state memory"),
        ("blocks", 12, False, "MATMUL: full column blocks, at least 1"),
        ("tails", 4, False, "MATMUL: bit i set: a block of 2**(i+1) rows a word comes before the full ones"),
        ("shift", 6, False, "MATMUL: right shift of the product (OUTGATE, MUL); EMBED: of element * 2**17"),
        ("reserved1", 2, False, "zero"),
        ("eps_mantissa", 16, False, "QUANT: share of S2 in the divisor, mantissa; MATMUL: stream of the generator"),
        ("eps_shift", 7, False, "QUANT: and its right shift"),
        ("reserved2", 1, False, "zero"),
        ("eps_const", 40, False, "QUANT: constant term of the divisor; MATMUL: seed of the generator (32 bits)"),
        (
            "scale_mantissa",
            24,
            False,
            "QUANT: constant of the projection, mantissa in [2**23, 2**24); MATMUL: first row for the generator",
        ),
        ("scale_exponent", 12, True, "QUANT: and its exponent"),
        (
            "generated",
            12,
            False,
            "MATMUL: so many full blocks, the first ones, come from the generator; at most `blocks`",
        ),
        ("reserved3", 16, False, "zero"),
    )
    fields, offset = [], 0
    for name, width, signed, doc in table:
        fields.append(Field(name, offset, width, signed, doc))
        offset += width
    assert offset == DESCRIPTOR_BYTES * 8
    return tuple(fields)


FIELDS = _fields()
FIELDS_BY_NAME = {field.name: field for field in FIELDS}


def encode(**values: int) -> bytes:
    """A descriptor of 32 bytes; fields left out are zero.

    Raises:
        ValueError: an unknown field or a value that does not fit.
    """
    word = 0
    for name, value in values.items():
        field = FIELDS_BY_NAME.get(name)
        if field is None:
            raise ValueError(f"descriptor has no field {name!r}")
        low, high = (-(1 << (field.width - 1)), 1 << (field.width - 1)) if field.signed else (0, 1 << field.width)
        if not low <= value < high:
            raise ValueError(f"{name} = {value} does not fit {field.width} bits")
        word |= (value & ((1 << field.width) - 1)) << field.offset
    return word.to_bytes(DESCRIPTOR_BYTES, "little")


def is_legal(fields: dict[str, int], *, generator: bool) -> bool:
    """Whether the sequencer of a build with or without a generator runs the descriptor or stops with BAD_OPCODE."""
    opcode = fields["opcode"]
    if opcode == Opcode.END:
        return True
    if opcode not in set(Opcode) - {Opcode.ILLEGAL} or fields["count"] == 0:
        return False
    if opcode in (Opcode.MATMUL, Opcode.EMBED) and fields["row_op"] not in set(RowOp):
        return False
    if opcode != Opcode.MATMUL:
        return True
    return fields["blocks"] > 0 and fields["generated"] <= (fields["blocks"] if generator else 0)


def decode(data: bytes) -> dict[str, int]:
    """The fields of a descriptor."""
    word = int.from_bytes(data[:DESCRIPTOR_BYTES], "little")
    values = {}
    for field in FIELDS:
        value = word >> field.offset & ((1 << field.width) - 1)
        if field.signed and value >> (field.width - 1):
            value -= 1 << field.width
        values[field.name] = value
    return values
