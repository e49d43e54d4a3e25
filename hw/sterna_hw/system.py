"""What every board holds beside its DRAM controller: the accelerator, and the host's way to it."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec.board import BUILD_ID_WORDS, BoardDescription
from sterna.spec.config import HardwareConfig
from sterna_hw.accelerator import Accelerator
from sterna_hw.axi import AXI4Read, AXI4Write
from sterna_hw.dram import Wishbone
from sterna_hw.link.endpoint import Endpoint
from sterna_hw.link.memory_mux import MemoryMux
from sterna_hw.link.select import LinkSelect

SHOWN_BITS = 22  # 2**22 cycles, 56 ms at 75 MHz


class System(wiring.Component):
    """An accelerator behind the host link (``sterna.spec.link``).

    All in the ``sync`` domain, which is the clock of the DRAM controller.

    Args:
        config: The accelerator's.
        description: What the host reads about the board; ``description.config`` is ``config``.
        build_id: 128 bits that name the bitstream.
        links: Byte links to the host; the one that spoke last is answered.

    Attributes:
        rx0, rx1, …: In Bytes from the host.
        tx0, tx1, …: Out Bytes to the host.
        overflow: In High in each cycle in which a link had to drop a byte.
        bus: Out AXI4 to the memory: of the accelerator, and of the host while no token runs.
        control: Out To the DRAM controller's registers.
        memory_locked, memory_ready, memory_failed: In LiteDRAM's ``pll_locked`` (may be asynchronous), ``init_done``
            and ``init_error``.
        busy: Out A token runs.
        activity: Out High while requests are handled, long enough for an eye to see on an LED.
    """

    def __init__(self, *, config: HardwareConfig, description: BoardDescription, build_id: int, links: int = 1) -> None:
        if description.config != config:
            raise ValueError(f"the description is of {description.config.name}, the accelerator of {config.name}")
        if not 0 <= build_id < 1 << 32 * BUILD_ID_WORDS:
            raise ValueError(f"build_id must have at most {32 * BUILD_ID_WORDS} bits, not {build_id:#x}")
        if links not in (1, 2):
            raise ValueError(f"links must be 1 or 2, not {links!r}")
        self._config, self._description, self._build_id, self._links = config, description, build_id, links
        read = AXI4Read(config.address_width, config.beat_bytes)
        write = AXI4Write(config.address_width, config.beat_bytes)
        super().__init__(
            {
                **{f"rx{index}": In(stream.Signature(8)) for index in range(links)},
                **{f"tx{index}": Out(stream.Signature(8)) for index in range(links)},
                "overflow": In(1),
                "bus": Out(wiring.Signature({**dict(read.members), **dict(write.members)})),
                "control": Out(Wishbone()),
                "memory_locked": In(1),
                "memory_ready": In(1),
                "memory_failed": In(1),
                "busy": Out(1),
                "activity": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        width = {"address_width": config.address_width, "data_bytes": config.beat_bytes}
        m.submodules.accelerator = accelerator = Accelerator(config=config)
        m.submodules.endpoint = endpoint = Endpoint(
            **width,
            memory_bytes=self._description.dram.bytes,
            description=self._description.pack(),
            build_id=self._build_id,
        )
        m.submodules.mux = mux = MemoryMux(**width)
        wiring.connect(m, accelerator.m_axi, mux.accelerator)
        wiring.connect(m, endpoint.memory, mux.host)
        wiring.connect(m, mux.bus, wiring.flipped(self.bus))
        wiring.connect(m, endpoint.core, accelerator.s_axil)
        wiring.connect(m, endpoint.dram, wiring.flipped(self.control))
        self._connect_links(m, endpoint)

        shown = Signal(SHOWN_BITS)
        with m.If(~endpoint.listening):
            m.d.sync += shown.eq(-1)
        with m.Elif(shown.any()):
            m.d.sync += shown.eq(shown - 1)
        m.d.comb += [
            endpoint.memory_free.eq(mux.free & ~accelerator.busy),
            mux.claimed.eq(endpoint.memory_claimed),
            endpoint.memory_locked.eq(self.memory_locked),
            endpoint.memory_ready.eq(self.memory_ready),
            endpoint.memory_failed.eq(self.memory_failed),
            endpoint.overflow.eq(self.overflow),
            self.busy.eq(accelerator.busy),
            self.activity.eq(shown.any()),
        ]
        return m

    def _connect_links(self, m: Module, endpoint: Endpoint) -> None:
        if self._links == 1:
            wiring.connect(m, wiring.flipped(self.rx0), endpoint.received)
            wiring.connect(m, endpoint.sent, wiring.flipped(self.tx0))
            return
        m.submodules.select = select = LinkSelect(links=self._links)
        for index in range(self._links):
            wiring.connect(m, wiring.flipped(getattr(self, f"rx{index}")), getattr(select, f"received{index}"))
            wiring.connect(m, getattr(select, f"sent{index}"), wiring.flipped(getattr(self, f"tx{index}")))
        wiring.connect(m, select.received, endpoint.received)
        wiring.connect(m, endpoint.sent, select.sent)
        m.d.comb += [endpoint.restart.eq(select.restart), select.listening.eq(endpoint.listening)]
