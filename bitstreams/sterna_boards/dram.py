"""Recipes of DRAM controllers, and the cores that LiteDRAM generates from them.

A recipe holds everything that decides a core: device, memory, clocks, buffers. The pinned versions of LiteDRAM, LiteX
and Migen (extra ``bitstream``) do the rest, and a core is kept under the hash of all of these, so nothing generated is
in the repository.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sterna.errors import SternaError

GENERATORS = ("litedram", "litex", "migen")  # packages whose version decides the text
PORT = "memory"  # ports of the AXI4 side are user_port_memory_...
MODULE = "litedram"  # name of the Verilog module


@dataclass(frozen=True, kw_only=True)
class DramRecipe:
    """A LiteDRAM controller on one board.

    Times of a DRAM are nanoseconds, as in its data sheet; rates are hertz.
    """

    name: str
    device: str  # FPGA, as LiteX names it
    module: str  # class of litedram.modules
    byte_lanes: int  # width of the data bus in bytes
    refresh_ns: float  # tRFC: depends on the chip's density, not on its speed
    input_clock: float  # at the clock pin
    clock: float  # of the controller and its user; the DRAM is clocked at twice this
    init_clock: float = 25e6  # of the PHY's start-up sequence
    cmd_buffer_depth: int = 16  # commands waiting for a bank


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
    )
}


@dataclass(frozen=True, kw_only=True)
class DramCore:
    """A generated controller.

    Counts of cycles are of the controller's clock. The DRAM has ``phases`` clocks in each of them.
    """

    verilog: str  # one module, called ``litedram``
    simulated: bool  # the DFI of the PHY is a port of the module, instead of the pins of the chip
    address_width: int  # bits of a byte address
    data_bytes: int  # of the AXI4 port
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


def dram_core(
    recipe: DramRecipe, *, cache: Path, simulated: bool = False, progress: Callable[[str], None] | None = None
) -> DramCore:
    """The controller of ``recipe``: from the folder ``cache`` when recipe, versions and generator are the same.

    Args:
        recipe: What to generate.
        cache: Folder of generated cores; made when it is missing.
        simulated: Leave out PHY and clocks: the module takes the controller's clock and shows the DFI.
        progress: Called with a few words before a generation.

    Raises:
        SternaError: the generators are not installed, or know no such memory.
    """
    key = {"recipe": asdict(recipe), "simulated": simulated, "versions": {name: _version(name) for name in GENERATORS}}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode())
    for path in (Path(__file__), Path(__file__).with_name("litedram_core.py")):
        digest.update(path.read_bytes())
    kept = cache / f"{recipe.name}-{'sim' if simulated else 'ecp5'}-{digest.hexdigest()[:20]}.json"
    if not kept.exists():
        if progress:
            progress(f"generating the DRAM controller {recipe.name}")
        from sterna_boards.litedram_core import generate

        made = json.dumps(asdict(generate(recipe, simulated=simulated)))
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache, delete=False) as file:
            file.write(made)
        Path(file.name).replace(kept)
    return DramCore(**json.loads(kept.read_text()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise SternaError(f"generating a DRAM controller needs {package}: pip install 'sterna[bitstream]'") from None
