"""Flags of LiteDRAM's DFI injector, through which the host starts a DRAM (docs/link.md).

A step of an init sequence without CS is no command to the chip: its flags are those of the control register.
"""

from __future__ import annotations

from enum import IntFlag


class DfiCommand(IntFlag):
    """Bits of a phase's command register, by the names of LiteDRAM's init sequences."""

    CS = 1 << 0
    WE = 1 << 1
    CAS = 1 << 2
    RAS = 1 << 3
    WRDATA = 1 << 4  # the phase's write data goes with the command
    RDDATA = 1 << 5  # read data will be kept
    RANK_0 = 1 << 6  # with CS: only the first of two ranks
    RANK_1 = 1 << 7  # with CS: only the second


class DfiControl(IntFlag):
    """Bits of the control register."""

    SEL = 1 << 0  # the controller drives the chip, no longer the injector
    CKE = 1 << 1
    ODT = 1 << 2
    RESET_N = 1 << 3
