"""Registers of pipelines that never stall: delays, stages, trees."""

from __future__ import annotations

from collections.abc import Callable

from amaranth import Cat, Module, Signal, Value


def delayed(m: Module, value: Value, cycles: int) -> Value:
    """``value``, one bit, of ``cycles`` cycles ago."""
    if cycles == 0:
        return value
    chain = Signal(cycles)
    m.d.sync += chain.eq(Cat(value, chain))
    return chain[-1]


def registered(m: Module, value: Value, width: int) -> Signal:
    """``value``, unsigned and cut to ``width`` bits, one cycle later. Registers of pipelines need no reset."""
    register = Signal(width, reset_less=True)
    m.d.sync += register.eq(value)
    return register


def tree(m: Module, values: list[Value], join: Callable[[Value, Value], Value], grow: int) -> Value:
    """``values`` joined two by two, a registered level after the other; each level is ``grow`` bits wider."""
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=True)
        values = [registered(m, join(a, b), max(len(a), len(b)) + grow) for a, b in pairs]
    return values[0]
