"""The boards: part, memory ports, clock, and how the host reaches them."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.errors import SternaError
from sterna.spec.config import HardwareConfig, preset


@dataclass(frozen=True, kw_only=True)
class HbmCard:
    """What a block design must know of a PCI Express card with HBM."""

    density: str  # as the HBM's IP names it
    clock_pins: tuple[str, str]  # positive, negative; 100 MHz
    host_ports: int  # memory ports that the DMA shares: the HBM's switch leads from any of them to all of its memory
    port_clock: int | None = None  # of the HBM's ports, hertz; None: XDMA's, which is the accelerator's too
    cattrip_pin: str | None = None  # out: the HBM is too hot


@dataclass(frozen=True, kw_only=True)
class XilinxTarget:
    """A board with an AMD (Xilinx) UltraScale+ device. Addresses and sizes in bytes, the clock in hertz.

    The memory port of one accelerator is striped over ``len(bases)`` ports (:class:`sterna_hw.stripe.Stripe`); each of
    several clusters has a port of its own, to a part that follows that of the cluster before.
    """

    name: str
    summary: str
    part: str
    board_part: str
    family: str  # of `synth_xilinx`
    preset: str
    clock: int
    shell: str  # block design: "zynq" or "pcie"
    bases: tuple[int, ...]  # where each port's part of the memory begins
    port_address_width: int
    registers: dict[str, object]  # windows of the device file (sterna.link.mapped)
    memory: dict[str, object]
    luts: int  # of the device
    flip_flops: int
    block_rams: int  # of 18 kbit
    ultra_rams: int
    dsps: int
    hbm: HbmCard | None = None  # of the shell "pcie"

    @property
    def config(self) -> HardwareConfig:
        """What the accelerator is generated with."""
        return preset(self.preset)

    @property
    def stripes(self) -> int:
        """Ports that share each beat."""
        return len(self.bases) // self.config.clusters

    @property
    def part_bytes(self) -> int:
        """Memory behind each port that the accelerator can address."""
        return (1 << self.config.address_width) // self.stripes

    @property
    def port_bytes(self) -> int:
        """Data width of a port."""
        return self.config.beat_bytes // self.stripes


_MIB = 1 << 20
REGISTER_WINDOW = 4096  # a page, the least that can be mapped

TARGETS = {
    target.name: target
    for target in (
        XilinxTarget(
            name="kv260",
            summary="AMD Kria KV260: Zynq UltraScale+, 4 GiB DDR4 on four 128-bit ports, hosted by its own processor",
            part="xck26-sfvc784-2LV-c",
            board_part="xilinx.com:kv260_som:part0:1.4",
            family="xcup",
            preset="kv260",
            clock=250_000_000,
            shell="zynq",
            bases=tuple(0x4000_0000 + port * 256 * _MIB for port in range(4)),
            port_address_width=40,
            registers={"map": "/dev/uio4", "size": REGISTER_WINDOW},
            memory={"map": "/dev/udmabuf0", "size": 1024 * _MIB},
            luts=117_120,
            flip_flops=234_240,
            block_rams=288,
            ultra_rams=64,
            dsps=1248,
        ),
        XilinxTarget(
            name="u55c",
            summary="AMD Alveo U55C: 4 of the 32 ports of its 16 GiB HBM, the host on PCI Express through XDMA",
            part="xcu55c-fsvh2892-2L-e",
            board_part="xilinx.com:au55c:part0:1.0",
            family="xcup",
            preset="u55c",
            clock=250_000_000,
            shell="pcie",
            bases=tuple(port * 1024 * _MIB for port in range(4)),  # a channel's, behind two ports of 512 MiB
            port_address_width=34,
            registers={"map": "/dev/xdma0_user", "size": REGISTER_WINDOW},
            memory={"reads": "/dev/xdma0_c2h_0", "writes": "/dev/xdma0_h2c_0", "base": 0, "size": 4096 * _MIB},
            luts=1_303_680,
            flip_flops=2_607_360,
            block_rams=4032,
            ultra_rams=960,
            dsps=9024,
            hbm=HbmCard(density="16GB", clock_pins=("BK43", "BK44"), host_ports=1, cattrip_pin="BE45"),
        ),
        XilinxTarget(
            name="u280",
            summary="AMD Alveo U280: a cluster on each of its 32 HBM ports, the host on PCI Express through XDMA",
            part="xcu280-fsvh2892-2L-e",
            board_part="xilinx.com:au280:part0:1.1",
            family="xcup",
            preset="u280",
            clock=225_000_000,
            shell="pcie",
            bases=tuple(port * 256 * _MIB for port in range(32)),
            port_address_width=33,
            registers={"map": "/dev/xdma0_user", "size": REGISTER_WINDOW},
            memory={"reads": "/dev/xdma0_c2h_0", "writes": "/dev/xdma0_h2c_0", "base": 0, "size": 8192 * _MIB},
            luts=1_303_680,
            flip_flops=2_607_360,
            block_rams=4032,
            ultra_rams=960,
            dsps=9024,
            hbm=HbmCard(
                density="8GB",
                clock_pins=("BJ43", "BJ44"),
                host_ports=1,
                port_clock=450_000_000,
                cattrip_pin="D32",
            ),
        ),
    )
}


def find_target(name: str) -> XilinxTarget:
    """The target called ``name``.

    Raises:
        SternaError: there is none.
    """
    try:
        return TARGETS[name]
    except KeyError:
        raise SternaError(f"there is no board {name!r} for Vivado; choose one of {', '.join(TARGETS)}") from None
