"""Memories whose controllers open rows ahead (``banked.hpp``): DDR4 of a Zynq UltraScale+, HBM of an Alveo."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from sterna.errors import SternaError


@dataclass(frozen=True, kw_only=True)
class BankedModel:
    """DRAM channels in lockstep, each with a slice of every beat of the port.

    Requests are served in order, rows open as soon as their request has arrived. Times are nanoseconds of a data sheet
    and become whole cycles of the port's clock; the latency is of an idle controller, clock crossings and interconnect
    included. Not modelled: four-activate windows, bank groups, and the controllers' reordering, which a stream does
    not need.

    Attributes:
        clock: Of the port, hertz.
        slice_bytes: Width of a channel's part of a beat.
        channels: Behind a port.
        ports: Of an accelerator of clusters, each with channels of its own; refreshes of all channels are out of step.
        channel_rate: Bytes a second of a channel, at its pins.
        sequential: Part of a port's rate that a long sequential read reaches, measured with ``sterna_sim.traffic``.
        random: The same of reads of one beat at random places.
    """

    clock: int
    slice_bytes: int
    channels: int = 1
    ports: int = 1
    channel_rate: int
    sequential: float
    random: float
    latency: float  # from the address handshake to the beat, row open
    row_bytes: int  # of one row of one bank of a channel
    interleave_bytes: int  # of a channel's consecutive addresses that lie in one bank
    banks: int
    trcd: float
    trp: float
    tras: float
    trrd: float
    trtp: float = 7.5  # from a read to the precharge
    twr: float = 20.0  # from written data to the precharge, the burst and the write latency included
    turnaround: float = 15.0  # of the data bus, from reads to writes or back
    trefi: float = 7800.0
    trfc: float
    beats_in_flight: int = 512  # asked for and not taken
    write_queue: int = 32  # cycles by which written data may be behind
    size: int = 1 << 31  # bytes that the accelerator is given behind a port

    def __post_init__(self) -> None:
        if self.channel_rate > self.slice_bytes * self.clock:
            raise SternaError(
                f"memory model: a channel gives {self.channel_rate} bytes a second, its part of the port takes "
                f"{self.slice_bytes * self.clock}"
            )

    @property
    def port_bytes(self) -> int:
        """Data width of a memory port."""
        return self.slice_bytes * self.channels

    def peak_bytes(self, beat_bytes: int, ports: int = 1) -> float:
        """See :meth:`sterna_sim.memory.Memory.peak_bytes`."""
        if beat_bytes != self.port_bytes:
            raise SternaError(
                f"this memory has a port of {self.port_bytes} bytes, the accelerator one of {beat_bytes}: choose a "
                f"configuration with beats of {self.port_bytes} bytes"
            )
        if ports != self.ports:
            raise SternaError(
                f"this memory has ports: {self.ports}, the accelerator: {ports}; they must be as many, as of hbm32 "
                "and u280"
            )
        return self.sequential * beat_bytes * ports

    def cycles(self, port: int = 0) -> dict[str, int]:
        """Fields of ``BankedConfig`` of a port: cycles of its clock, beats, and the rate as a fraction."""
        beat_rate, unit = self.channel_rate // 1000, self.slice_bytes * self.clock // 1000

        def whole(nanoseconds: float) -> int:
            return ceil(nanoseconds * self.clock / 1e9 - 1e-9)

        return {
            "beat_bytes": self.port_bytes,
            "channels": self.channels,
            "rate_numerator": beat_rate,
            "rate_denominator": unit,
            "latency": whole(self.latency),
            "write_latency": whole(self.latency),
            "row_beats": self.row_bytes // self.slice_bytes,
            "interleave_beats": self.interleave_bytes // self.slice_bytes,
            "banks": self.banks,
            "trcd": whole(self.trcd),
            "trp": whole(self.trp),
            "tras": whole(self.tras),
            "trrd": whole(self.trrd),
            "read_recovery": whole(self.trtp),
            "write_recovery": whole(self.twr),
            "turnaround": whole(self.turnaround),
            "refresh_interval": whole(self.trefi),
            "refresh_cycles": whole(self.trfc),
            "refresh_stagger": whole(self.trefi) // (self.channels * self.ports),
            "refresh_phase": port * whole(self.trefi) // self.ports,
            "beats_in_flight": self.beats_in_flight,
            "write_queue": self.write_queue,
        }


# Kria K26: four DDR4-2400 x16 of 8 Gbit, 64 bits in all, behind the processing system's controller and four 128-bit
# ports at 300 MHz. Times: Micron MT40A512M16, speed grade 083E.
ZYNQ_DDR4 = BankedModel(
    clock=300_000_000,
    slice_bytes=64,
    channel_rate=19_200_000_000,
    sequential=0.9502,
    random=0.135,
    latency=150,
    row_bytes=8192,
    interleave_bytes=8192,
    banks=8,
    trcd=13.32,
    trp=13.32,
    tras=32,
    trrd=5.3,
    trfc=350,
)

# Alveo U280/U55C: pseudo channels of 14.4 GB/s; a part of 64 bytes at 225 MHz takes a whole one.
HBM2 = BankedModel(
    clock=225_000_000,
    slice_bytes=64,
    channels=2,
    channel_rate=14_400_000_000,
    sequential=0.9215,
    random=0.19,
    latency=106.7,
    row_bytes=1024,
    interleave_bytes=1024,
    banks=16,
    trcd=14,
    trp=14,
    tras=33,
    trrd=4,
    trefi=3900,
    trfc=260,
)

# The same, a pseudo channel behind each of 32 ports.
HBM32 = replace(HBM2, channels=1, ports=32, sequential=0.9215, random=0.206, size=1 << 28)
