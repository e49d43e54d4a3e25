"""Recipes of DRAM controllers, and what a generated controller is.

A recipe holds everything that decides a core besides the versions of the generators: device, memory, clocks, buffers.
"""

from __future__ import annotations

from dataclasses import dataclass

from sterna.spec.board import DramDescription

PORT = "memory"  # ports of the AXI4 side are user_port_memory_...
MODULE = "litedram"  # name of the Verilog module


@dataclass(frozen=True, kw_only=True)
class DramRecipe:
    """A LiteDRAM controller on one board.

    Times of a DRAM are nanoseconds, as in its data sheet; rates are hertz. The DRAM is clocked at twice ``clock``, so a
    cycle moves four bytes a lane of a DDR3 chip and two of an SDR one.
    """

    name: str
    kind: str = "DDR3"  # or "SDR"
    device: str  # FPGA, as LiteX names it
    module: str  # class of litedram.modules
    byte_lanes: int  # width of the data bus in bytes
    ranks: int = 1  # sets of chips on that bus
    refresh_ns: float  # tRFC: depends on the chip's density, not on its speed
    input_clock: float  # at the clock pin
    clock: float  # of the controller and its user
    init_clock: float = 25e6  # of a DDR3 PHY's start-up sequence
    cmd_buffer_depth: int = 16  # commands waiting for a bank

    @property
    def crossing(self) -> float | None:
        """Rate at which logic between the core's clocks must work, hertz; None where no logic is between them.

        An SDR PHY is logic at the doubled clock; that of DDR3 consists of I/O primitives.
        """
        return 2 * self.clock if self.kind == "SDR" else None


RECIPES = {
    recipe.name: recipe
    for recipe in (
        DramRecipe(
            name="ecpix5-ddr3",
            device="LFE5UM5G-85F-8BG554I",
            module="MT41K256M16",
            byte_lanes=2,
            refresh_ns=260,  # 4 Gbit
            input_clock=100e6,
            clock=75e6,
        ),
        DramRecipe(
            name="butterstick-ddr3",
            device="LFE5UM5G-85F-8BG381C",
            module="MT41K256M16",
            byte_lanes=2,
            ranks=2,  # two chips share the 16 data pins
            refresh_ns=260,  # 4 Gbit
            input_clock=30e6,
            clock=60e6,  # at 75 MHz a build with the memories of a 2.7B model placed at 67 MHz
        ),
        DramRecipe(
            name="ulx3s-sdr",
            kind="SDR",
            device="LFE5U-85F-6BG381C",
            module="MT48LC16M16",  # boards carry chips of several makers; the slowest time of each is kept
            byte_lanes=2,
            refresh_ns=70,  # of an IS42S16160G-7
            input_clock=25e6,
            clock=50e6,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class DramCore:
    """A generated controller.

    Counts of cycles are of the controller's clock. The DRAM has ``phases`` clocks in each of them.
    """

    verilog: str  # one module, called ``litedram``
    kind: str  # "DDR3" or "SDR"
    simulated: bool  # the DFI of the PHY is a port of the module, instead of the pins of the chip
    address_width: int  # bits of a byte address
    data_bytes: int  # of the AXI4 port
    byte_lanes: int  # of the data pins
    ranks: int
    phases: int
    row_bits: int
    bank_bits: int
    column_bits: int
    timing: dict[str, int]  # cycles between commands that the controller keeps, by JEDEC name
    phy: dict[str, int]  # latencies and phases of the PHY
    registers: dict[str, tuple[int, int]]  # name to byte address on the control port, and its number of 32-bit words
    init_sequence: list[tuple[str, int, int, int, int]]  # comment, address, bank, command, cycles to wait

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return 1 << self.address_width

    @property
    def description(self) -> DramDescription:
        """What the host that starts this memory needs to know."""
        return DramDescription(
            kind=self.kind,
            bytes=self.size,
            data_bytes=self.data_bytes,
            byte_lanes=self.byte_lanes,
            ranks=self.ranks,
            phases=self.phases,
            phy=self.phy,
            registers={name: (address, words) for name, (address, words) in self.registers.items()},
            init_sequence=tuple((what, a, ba, flags, wait) for what, a, ba, flags, wait in self.init_sequence),
        )
