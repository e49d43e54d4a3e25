"""A small block with the accelerator's ports, so that harness, transport and driver have a test of their own.

On START it reads PROGRAM_BEATS beats from PROGRAM_ADDRESS and adds up the low 32 bits of each (all go to the trace);
SAMPLED is that sum, plus TOKEN, plus SAMPLED of the last token unless FRESH. With LOGITS, VOCABULARY numbers
SAMPLED, SAMPLED + 1, ... go to LOGITS_ADDRESS. A token at or above VOCABULARY and error responses end in ERROR.
EMBED_BEATS chooses one of :class:`Bug`, so that the harness can be seen to find it.
"""

from __future__ import annotations

from enum import IntEnum
from functools import reduce
from operator import and_, or_

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from sterna.spec.config import HardwareConfig
from sterna.spec.registers import MAGIC, OFFSET, REGISTER_SPACE_BITS, VERSION, Control, ErrorCause, Status


class Bug(IntEnum):
    NONE = 0
    HANG = 1
    CROSS_4K = 2
    DROP_AR = 3
    MISALIGNED = 4
    FIXED_BURST = 5
    CHANGE_W = 6
    EARLY_WLAST = 7
    NARROW = 8


def _memory_port(config: HardwareConfig) -> wiring.Signature:
    members = {}
    for channel in "ar", "aw":
        members |= {f"{channel}addr": Out(config.address_width), f"{channel}len": Out(8), f"{channel}size": Out(3)}
        members |= {f"{channel}burst": Out(2), f"{channel}valid": Out(1), f"{channel}ready": In(1)}
    width = 8 * config.beat_bytes
    members |= {"rdata": In(width), "rresp": In(2), "rlast": In(1), "rvalid": In(1), "rready": Out(1)}
    members |= {
        "wdata": Out(width),
        "wstrb": Out(config.beat_bytes),
        "wlast": Out(1),
        "wvalid": Out(1),
        "wready": In(1),
    }
    return wiring.Signature(members | {"bresp": In(2), "bvalid": In(1), "bready": Out(1)})


def _register_port() -> wiring.Signature:
    members = {"awaddr": Out(REGISTER_SPACE_BITS), "awvalid": Out(1), "awready": In(1)}
    members |= {"wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1)}
    members |= {"bresp": In(2), "bvalid": In(1), "bready": Out(1)}
    members |= {"araddr": Out(REGISTER_SPACE_BITS), "arvalid": Out(1), "arready": In(1)}
    return wiring.Signature(members | {"rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1)})


class StandIn(wiring.Component):
    def __init__(self, *, config: HardwareConfig):
        self._config = config
        super().__init__(
            {
                "m_axi": Out(_memory_port(config)),
                "s_axil": In(_register_port()),
                "trace_valid": Out(1),
                "trace_values": Out(24 * config.slots),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, axi, lite = self._config, self.m_axi, self.s_axil
        beat_shift = exact_log2(config.beat_bytes)
        writable = (
            "TOKEN",
            "PROGRAM_ADDRESS",
            "PROGRAM_BEATS",
            "EMBED_ADDRESS",
            "EMBED_BEATS",
            "VOCABULARY",
            "LOGITS_ADDRESS",
        )
        writable += ("PROGRAM_ADDRESS_HIGH", "EMBED_ADDRESS_HIGH", "LOGITS_ADDRESS_HIGH")
        shown = ("STATUS", "ERROR_CAUSE", "SAMPLED", "CYCLES", "READ_BEATS", "STALL_MEMORY", "TOKENS")
        reg = {name: Signal(32, name=name.lower()) for name in writable + shown}
        constants = {"MAGIC": MAGIC, "VERSION": VERSION, "CONFIG_HASH": config.hash}
        control = Signal(4)
        m.d.sync += control.eq(0)

        m.d.comb += lite.arready.eq(~lite.rvalid)
        with m.If(lite.arvalid & lite.arready):
            m.d.sync += [lite.rvalid.eq(1), lite.rdata.eq(0)]
            with m.Switch(lite.araddr):
                for name, value in (constants | reg).items():
                    with m.Case(OFFSET[name]):
                        m.d.sync += lite.rdata.eq(value)
        with m.If(lite.rvalid & lite.rready):
            m.d.sync += lite.rvalid.eq(0)
        accept = Signal()
        m.d.comb += [
            accept.eq(lite.awvalid & lite.wvalid & ~lite.bvalid),
            lite.awready.eq(accept),
            lite.wready.eq(accept),
        ]
        with m.If(accept):
            m.d.sync += lite.bvalid.eq(1)
            with m.Switch(lite.awaddr):
                for name in writable:
                    with m.Case(OFFSET[name]):
                        m.d.sync += reg[name].eq(lite.wdata)
                with m.Case(OFFSET["CONTROL"]):
                    m.d.sync += control.eq(lite.wdata)
        with m.If(lite.bvalid & lite.bready):
            m.d.sync += lite.bvalid.eq(0)

        busy, done, error = Signal(), Signal(), Signal()
        fresh, logits, abandoned = Signal(), Signal(), Signal()
        bug = Signal(Bug)
        m.d.comb += [reg["STATUS"].eq(Cat(busy, done, error)), bug.eq(reg["EMBED_BEATS"])]
        cause = reg["ERROR_CAUSE"]
        with m.If(control & Control.RESET):
            m.d.sync += [abandoned.eq(busy), error.eq(0), done.eq(0), cause.eq(0)]
        with m.If(busy):
            m.d.sync += reg["CYCLES"].eq(reg["CYCLES"] + 1)

        # Read addresses: bursts as long as the configuration and the next 4 KiB boundary allow.
        address, to_ask = Signal(config.address_width), Signal(32)
        to_come, flying = Signal(32), Signal(range(config.outstanding + 1))
        to_page = Signal(13)
        burst = Signal(9)
        m.d.comb += to_page.eq((4096 - address[:12]) >> beat_shift)
        limit = Mux(
            bug == Bug.CROSS_4K, config.burst_beats, Mux(to_page < config.burst_beats, to_page, config.burst_beats)
        )
        next_burst = Signal(9)
        m.d.comb += next_burst.eq(Mux(to_ask < limit, to_ask, limit))
        asked = axi.arvalid & axi.arready
        ended = axi.rvalid & axi.rready & axi.rlast
        m.d.sync += flying.eq(flying + asked - ended)
        m.d.comb += [axi.arlen.eq(burst - 1), axi.arsize.eq(beat_shift - (bug == Bug.NARROW))]
        m.d.comb += axi.arburst.eq(Mux(bug == Bug.FIXED_BURST, 0, 1))
        with m.If(asked | (bug == Bug.DROP_AR)):
            m.d.sync += axi.arvalid.eq(0)
        with m.If((to_ask != 0) & (~axi.arvalid | asked) & (flying + asked < config.outstanding) & ~abandoned):
            m.d.sync += [
                axi.arvalid.eq(1),
                axi.araddr.eq(address + (bug == Bug.MISALIGNED)),
                burst.eq(next_burst),
                address.eq(address + (next_burst << beat_shift)),
                to_ask.eq(to_ask - next_burst),
            ]

        total, bad = Signal(32), Signal()
        m.d.comb += [axi.rready.eq(1), self.trace_valid.eq(axi.rvalid), self.trace_values.eq(axi.rdata[:24])]
        with m.If(axi.rvalid):
            m.d.sync += [total.eq(total + axi.rdata[:32]), to_come.eq(to_come - 1), bad.eq(bad | axi.rresp.any())]
            m.d.sync += reg["READ_BEATS"].eq(reg["READ_BEATS"] + 1)
        with m.Elif(busy & (to_come != 0)):
            m.d.sync += reg["STALL_MEMORY"].eq(reg["STALL_MEMORY"] + 1)

        lanes = config.beat_bytes // 4
        index, left, in_burst = Signal(32), Signal(32), Signal(9)
        sampled = reg["SAMPLED"]
        m.d.comb += [axi.awsize.eq(beat_shift), axi.awburst.eq(1), axi.awlen.eq(in_burst - 1)]
        m.d.comb += [axi.wstrb.eq(-1), axi.wlast.eq((in_burst == 1) | (bug == Bug.EARLY_WLAST)), axi.bready.eq(1)]
        with m.If(bug == Bug.CHANGE_W):
            m.d.comb += axi.wdata.eq(reg["CYCLES"])
        with m.Else():
            m.d.comb += axi.wdata.eq(Cat((sampled + index + lane)[:32] for lane in range(lanes)))

        with m.FSM():
            with m.State("IDLE"), m.If(control & Control.START):
                m.d.sync += [
                    Cat(fresh, logits).eq(control[1:3]),
                    Cat(done, bad, abandoned).eq(0),
                    total.eq(0),
                    *(reg[name].eq(0) for name in ("CYCLES", "READ_BEATS", "STALL_MEMORY")),
                ]
                with m.If(reg["TOKEN"] >= reg["VOCABULARY"]):
                    m.d.sync += [error.eq(1), cause.eq(ErrorCause.BAD_TOKEN)]
                with m.Else():
                    m.d.sync += [busy.eq(1), address.eq(reg["PROGRAM_ADDRESS"])]
                    m.d.sync += [to_ask.eq(reg["PROGRAM_BEATS"]), to_come.eq(reg["PROGRAM_BEATS"])]
                    m.next = "READ"
            with m.State("READ"):
                with m.If(abandoned), m.If((flying == 0) & ~axi.arvalid):
                    m.d.sync += [busy.eq(0), to_ask.eq(0), to_come.eq(0)]
                    m.next = "IDLE"
                with m.Elif((to_come == 0) & (bug != Bug.HANG)):
                    m.d.sync += [sampled.eq(total + reg["TOKEN"] + Mux(fresh, 0, sampled)), index.eq(0)]
                    m.d.sync += [axi.awaddr.eq(reg["LOGITS_ADDRESS"]), left.eq(reg["VOCABULARY"] >> exact_log2(lanes))]
                    with m.If(bad):
                        m.d.sync += [error.eq(1), busy.eq(0), cause.eq(ErrorCause.BUS_READ)]
                        m.next = "IDLE"
                    with m.Elif(logits):
                        m.next = "WRITE"
                    with m.Else():
                        m.next = "END"
            with m.State("WRITE"):
                with m.If(left == 0):
                    m.next = "END"
                with m.Else():
                    m.d.sync += [in_burst.eq(Mux(left < 16, left, 16)), axi.awvalid.eq(1)]
                    m.next = "ADDRESS"
            with m.State("ADDRESS"), m.If(axi.awready):
                m.d.sync += [axi.awvalid.eq(0), axi.wvalid.eq(1)]
                m.next = "DATA"
            with m.State("DATA"), m.If(axi.wready):
                m.d.sync += [in_burst.eq(in_burst - 1), left.eq(left - 1), index.eq(index + lanes)]
                m.d.sync += axi.awaddr.eq(axi.awaddr + config.beat_bytes)
                with m.If(in_burst == 1):
                    m.d.sync += axi.wvalid.eq(0)
                    m.next = "RESPONSE"
            with m.State("RESPONSE"), m.If(axi.bvalid):
                m.next = "WRITE"
                with m.If(axi.bresp.any()):
                    m.d.sync += [error.eq(1), busy.eq(0), cause.eq(ErrorCause.BUS_WRITE)]
                    m.next = "IDLE"
            with m.State("END"):
                m.d.sync += [busy.eq(0), done.eq(1), reg["TOKENS"].eq(reg["TOKENS"] + 1)]
                m.next = "IDLE"
        return m


class StandInClusters(wiring.Component):
    """A stand-in for each cluster: writes of registers go to all, reads are answered by the first; STATUS is of all."""

    def __init__(self, *, config: HardwareConfig):
        self._config = config
        count = config.clusters
        super().__init__(
            {
                "m_axi": Out(_memory_port(config)).array(count),
                "s_axil": In(_register_port()),
                "trace_valid": Out(count),
                "trace_values": Out(24 * count),
            }
        )

    def elaborate(self, platform):
        m = Module()
        clusters = [StandIn(config=self._config) for _ in range(self._config.clusters)]
        first = clusters[0].s_axil
        for index, cluster in enumerate(clusters):
            m.submodules[f"cluster_{index}"] = cluster
            wiring.connect(m, cluster.m_axi, wiring.flipped(self.m_axi[index]))
            for name, member in _register_port().members.items():
                if member.flow is Out:
                    m.d.comb += getattr(cluster.s_axil, name).eq(getattr(self.s_axil, name))
                elif index == 0:
                    m.d.comb += getattr(self.s_axil, name).eq(getattr(first, name))
        status, read = Signal(len(Status)), Signal(REGISTER_SPACE_BITS)
        with m.If(first.arvalid & first.arready):
            m.d.sync += read.eq(first.araddr)
        with m.If(read == OFFSET["STATUS"]):
            values = [Signal(32, name=f"status_{index}") for index in range(len(clusters))]
            for value, cluster in zip(values, clusters, strict=True):
                m.d.comb += value.eq(cluster.s_axil.rdata)
            busy, errors = (reduce(or_, values) & flag for flag in (Status.BUSY, Status.ERROR))
            m.d.comb += status.eq(busy | errors | (reduce(and_, values) & Status.DONE))
            m.d.comb += self.s_axil.rdata.eq(status)
        m.d.comb += [
            self.trace_valid.eq(Cat(cluster.trace_valid for cluster in clusters)),
            self.trace_values.eq(Cat(cluster.trace_values for cluster in clusters)),
        ]
        return m
