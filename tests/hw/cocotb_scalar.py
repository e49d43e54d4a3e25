"""Bench of ``ScalarUnit``: the integers of the specification and of docs/numerics.md, and constant time."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from streams import PERIOD_NS, cycle, seeded, start

from sterna.spec import numerics
from sterna.spec.numerics import QuantiserScalars, ScaleConstants, quantiser_scalars
from sterna_hw.vector.divisor import DIVISOR_CYCLES
from sterna_hw.vector.scalar import RECIPROCAL_CYCLES, scalar_constants, scalar_cycles

MASK64 = (1 << 64) - 1


@dataclass(frozen=True)
class Case:
    largest: int
    s1: int
    s2: int
    constants: ScaleConstants


def documented(case: Case) -> tuple[QuantiserScalars, int]:
    """The page's formulas, with another square root; second result: the shift before its clamp."""
    top, k = case.largest, case.constants
    if top == 0:
        return QuantiserScalars(0, 0, 0, 0), 0
    e = len(f"{top:b}")
    t_top = (top * 2**17 + 2**e // 2) // 2**e
    m = case.s1 + case.s2 * k.eps_mantissa // 2**k.eps_shift + k.eps_const
    m = 1 if m < 1 else 2**64 - 1 if m >= 2**64 else m
    up = next(up for up in range(-16, 48, 2) if 2**46 <= (m * 2**up if up >= 0 else m // 2**-up) < 2**48)
    shifted = m * 2**up if up >= 0 else m // 2**-up
    root = 0
    for bit in reversed(range(24)):
        if (root + 2**bit) ** 2 <= shifted:
            root += 2**bit
    quo = t_top * k.mantissa * 4 // root
    cut = 2 if quo >= 2**19 else 1 if quo >= 2**18 else 0
    shift = 2 - cut + 17 - e - k.exponent - up // 2
    return QuantiserScalars(e, 127 * 2**27 // t_top, quo // 2**cut, max(0, min(47, shift))), shift


def any_bits(rng: random.Random, width: int) -> int:
    """Any magnitude is as likely as another; often next to a power of two."""
    bits = rng.randint(0, width)
    value = rng.choice((1 << bits, (1 << bits) - 1, (1 << bits) + 1, rng.getrandbits(bits), rng.getrandbits(bits)))
    return min(value, (1 << width) - 1)


def random_case(rng: random.Random) -> Case:
    case = Case(
        max(any_bits(rng, numerics.PRODUCT_BITS), 1),
        any_bits(rng, 64),
        any_bits(rng, 64),
        ScaleConstants(
            eps_mantissa=any_bits(rng, 16),
            eps_shift=rng.randrange(128) if rng.random() < 0.5 else rng.randrange(40),
            eps_const=rng.choice((0, any_bits(rng, 40))),
            mantissa=rng.choice((1 << 23, (1 << 24) - 1, rng.randrange(1 << 23, 1 << 24))),
            exponent=0,
        ),
    )
    if rng.random() < 0.3:  # M next to a square, where roots differ
        square = rng.randrange(1 << rng.randint(1, 32)) ** 2 + rng.choice((-1, 0, 1))
        constants = replace(case.constants, eps_mantissa=0, eps_const=0)
        case = replace(case, s1=max(square, 0), constants=constants)
    # The shift lands anywhere, mostly in and around 0..47.
    wanted = rng.choice((rng.randint(-3, 50), rng.choice((-1, 0, 1, 46, 47, 48)), rng.randint(-2000, 2000)))
    exponent = max(-2048, min(2047, documented(case)[1] - wanted))
    if rng.random() < 0.1:
        exponent = rng.choice((-2048, -2000, 2000, 2047, rng.randint(-2048, 2047)))
    return replace(case, constants=replace(case.constants, exponent=exponent))


def edge_cases() -> list[Case]:
    """Each operand at its ends while the others stay in the middle."""
    middle = Case(123_456_789, 987_654_321_012, 555_555_555_555, ScaleConstants(40_000, 20, 1000, 0xC0FFEE, -21))
    tops = [0, *(1 << k for k in range(39)), *((1 << k) - 1 for k in range(2, 40)), (1 << 38) + 1]
    cases = [replace(middle, largest=top) for top in tops]
    sums = [0, 1, 2, 3, 4, (1 << 62) - 1, 1 << 62, 1 << 63, MASK64 - 1, MASK64]
    cases += [replace(middle, s1=value) for value in sums] + [replace(middle, s2=value) for value in sums]
    nothing = replace(middle.constants, eps_mantissa=0, eps_const=0)
    cases += [replace(middle, s1=1 << k, constants=nothing) for k in range(64)]
    cases += [replace(middle, s1=value, constants=nothing) for value in sums]
    huge = replace(middle, s2=MASK64, constants=replace(middle.constants, eps_mantissa=65535))
    cases += [replace(huge, constants=replace(huge.constants, eps_shift=shift)) for shift in range(128)]
    cases += [
        replace(middle, constants=replace(middle.constants, exponent=exponent)) for exponent in range(-2000, 2001, 100)
    ]
    cases += [replace(middle, s1=s1, s2=s2, constants=constants) for s1, s2, constants in saturating(middle.constants)]
    # Any mantissa divides, though the compiler makes normalised ones only.
    cases += [replace(middle, constants=replace(middle.constants, mantissa=value)) for value in (0, 1, (1 << 23) - 1)]
    return cases


def saturating(constants: ScaleConstants) -> list[tuple[int, int, ScaleConstants]]:
    """M at and around 2**64 by each of the ways there: a carry of either addition, bits of the product."""
    one = replace(constants, eps_mantissa=1, eps_shift=0, eps_const=0)
    return [
        (MASK64, 0, one),
        (MASK64, 1, one),
        (1 << 63, 1 << 63, one),
        (MASK64 - 5, 0, replace(one, eps_const=5)),
        (MASK64 - 5, 0, replace(one, eps_const=6)),
        (MASK64 - 5, 1, replace(one, eps_const=5)),
        (0, 1 << 63, replace(one, eps_mantissa=2)),
        (0, 1 << 63, replace(one, eps_mantissa=2, eps_shift=1)),
        (7, MASK64, replace(one, eps_mantissa=65535, eps_shift=15)),
        (7, MASK64, replace(one, eps_mantissa=65535, eps_shift=16)),
    ]


async def pulse(dut: Any, signals: list[Any]) -> int:
    """The signals high in the cycle that begins now; gives that cycle."""
    for signal in signals:
        signal.value = 1
    now = cycle()
    await RisingEdge(dut.clk)
    for signal in signals:
        signal.value = 0
    return now


async def check(dut: Any, case: Case, convert_after: int, rng: random.Random) -> None:
    """One job; ``convert`` comes ``convert_after`` cycles after ``prepare``."""
    k = case.constants
    packed = 0
    for name, field in scalar_constants():
        packed |= (getattr(k, name) & ((1 << field.width) - 1)) << field.offset
    dut.s1.value, dut.s2.value, dut.constants.value = case.s1, case.s2, packed
    dut.largest.value = case.largest if convert_after == 0 else rng.getrandbits(numerics.PRODUCT_BITS)
    prepared = converted = await pulse(dut, [dut.prepare, dut.convert] if convert_after == 0 else [dut.prepare])
    if convert_after:
        if convert_after > 1:
            await ClockCycles(dut.clk, convert_after - 1)
        dut.largest.value = case.largest
        converted = await pulse(dut, [dut.convert])
    dut.largest.value = rng.getrandbits(numerics.PRODUCT_BITS)  # sampled by now

    expected = quantiser_scalars(case.largest, case.s1, case.s2, k)
    assert documented(case)[0] == expected, f"specification and page differ: {case}"
    patience = 4 * scalar_cycles(convert_after) * PERIOD_NS
    await with_timeout(RisingEdge(dut.converted), patience, "ns")
    assert cycle() - converted == RECIPROCAL_CYCLES, f"converted after {cycle() - converted} cycles: {case}"
    await RisingEdge(dut.clk)  # values of the cycle with `converted`
    found = (int(dut.align.value), int(dut.reciprocal.value))
    if case.largest:
        assert found == (numerics.PRODUCT_BITS - expected.exponent, expected.reciprocal), (
            f"{found}, not {expected}: {case}"
        )
    else:
        assert found[1] == 0, f"reciprocal {found[1]} of a vector of zeros"
    await with_timeout(RisingEdge(dut.done), patience, "ns")
    assert cycle() - prepared == scalar_cycles(convert_after), f"done after {cycle() - prepared} cycles: {case}"
    await RisingEdge(dut.clk)
    assert not int(dut.converted.value)
    held = (int(dut.align.value), int(dut.reciprocal.value))
    assert held == found, f"align and reciprocal were {found}, are {held}"
    scale = (int(dut.mantissa.value), int(dut.shift.value))
    assert scale == (expected.scale_mantissa, expected.scale_shift), f"scale {scale}, not {expected}: {case}"


@cocotb.test()
async def edges(dut: Any) -> None:
    rng = seeded(dut, "edges")
    await start(dut)
    for case in edge_cases():
        await check(dut, case, rng.choice((0, 1, DIVISOR_CYCLES)), rng)


@cocotb.test()
async def overlap(dut: Any) -> None:
    """The root becomes ready before, with and after the reciprocal."""
    rng = seeded(dut, "overlap")
    await start(dut)
    for convert_after in range(DIVISOR_CYCLES + 4):
        await check(dut, random_case(rng), convert_after, rng)
        await ClockCycles(dut.clk, rng.choice((1, 2, 30)))


@cocotb.test()
async def random_operands(dut: Any) -> None:
    """Thousands of cases; they must have met both clamps of the shift and each count of cut bits."""
    rng = seeded(dut, "random")
    await start(dut)
    below = above = inside = 0
    for _ in range(4000):
        case = random_case(rng)
        shift = documented(case)[1]
        below, above, inside = below + (shift < 0), above + (shift > 47), inside + (0 <= shift <= 47)
        await check(dut, case, rng.choice((0, 5, DIVISOR_CYCLES - RECIPROCAL_CYCLES)), rng)
    dut._log.info("shifts below 0: %d, inside: %d, above 47: %d", below, inside, above)
    assert min(below, above) > 100 and inside > 1000


@cocotb.test()
async def reset_in_a_job(dut: Any) -> None:
    """A job cut off by reset leaves nothing behind."""
    rng = seeded(dut, "reset")
    await start(dut)
    for _ in range(20):
        await pulse(dut, [dut.prepare, dut.convert])
        await ClockCycles(dut.clk, rng.randint(1, scalar_cycles(0)))
        dut.rst.value = 1
        await ClockCycles(dut.clk, 2)
        dut.rst.value = 0
        await RisingEdge(dut.clk)
        await check(dut, random_case(rng), rng.randint(0, 40), rng)
