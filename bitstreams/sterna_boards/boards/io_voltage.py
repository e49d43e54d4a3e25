"""The adjustable I/O supplies of the ButterStick, which are off until the FPGA sets them."""

from __future__ import annotations

from math import pi

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

PULSE_BITS = 10
PIN_VOLTS = 3.3  # of a high output
FEEDBACK_VOLTS = 0.6  # at which the regulator holds its feedback pin
SET_OHMS, FEEDBACK_OHMS, INJECTION_OHMS = 13_000, 53_600, 68_000
FILTER_SECONDS = 68_000 * 0.1e-6  # time constant between pin and regulator
START_SECONDS = 1e-3  # of a regulator


def duty(volts: float) -> float:
    """Share of the time for which a pin must be high for its supply to give ``volts``.

    The currents into the feedback pin, from the supply and from the filtered pin, add up to what the set resistor
    draws at ``FEEDBACK_VOLTS``.

    Raises:
        ValueError: no share gives this voltage.
    """
    injected = FEEDBACK_VOLTS / SET_OHMS - (volts - FEEDBACK_VOLTS) / FEEDBACK_OHMS  # ampere
    share = (FEEDBACK_VOLTS + INJECTION_OHMS * injected) / PIN_VOLTS
    if not 0 < share < 1:
        raise ValueError(f"a supply can be set to 1.0 to 3.3 V, not {volts!r}")
    return share


class IoVoltage(wiring.Component):  # type: ignore[misc]  # amaranth: no types
    """Pulse-width control of three supplies, which are enabled when the filters have settled.

    Args:
        clock: Of the domain, hertz.
        volts: Of supplies A, B and C.

    Attributes:
        pulses: Out A pin for each supply.
        enable: Out Switches the regulators on.
        good: Out They have started.
    """

    def __init__(self, *, clock: int, volts: tuple[float, float, float]) -> None:
        if clock / (1 << PULSE_BITS) < 4 / (2 * pi * FILTER_SECONDS):
            raise ValueError(f"a clock of {clock} Hz is too slow for the filter of the supplies")
        self._levels = [round(duty(each) * (1 << PULSE_BITS)) for each in volts]
        self._settled = round(4 * 2 * pi * FILTER_SECONDS * clock)  # cycles
        self._started = self._settled + round(START_SECONDS * clock)
        super().__init__({"pulses": Out(len(volts)), "enable": Out(1), "good": Out(1)})

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        phase = Signal(PULSE_BITS)
        cycles = Signal(range(self._started + 1))
        m.d.sync += [
            phase.eq(phase + 1),
            *(self.pulses[index].eq(phase < level) for index, level in enumerate(self._levels)),
            self.enable.eq(cycles >= self._settled),
            self.good.eq(cycles == self._started),
        ]
        with m.If(cycles != self._started):
            m.d.sync += cycles.eq(cycles + 1)
        return m
