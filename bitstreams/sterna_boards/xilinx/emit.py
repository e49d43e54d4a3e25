"""Writes the folder that Vivado builds, and runs the tool where it is installed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sterna.errors import SternaError
from sterna_boards.xilinx.blockdesign import constraints, project_tcl
from sterna_boards.xilinx.targets import XilinxTarget
from sterna_boards.xilinx.top import CORE, WRAPPER, core_verilog, wrapper_verilog

ID_DIGITS = 32
SCRIPT = "build.tcl"
VIVADO = ("vivado", "-mode", "batch", "-source", SCRIPT)


def emit(target: XilinxTarget, *, root: Path, progress: Callable[[str], None] | None = None) -> Path:
    """The folder ``root/<board>/<build id>`` with Verilog, constraints, Tcl and the host's device file.

    The same sources give the same folder; an existing one is kept.
    """
    if progress:
        progress(f"generating the gateware of {target.name}")
    files = {
        f"{CORE}.v": core_verilog(target),
        f"{WRAPPER}.v": wrapper_verilog(target),
        "constraints.xdc": constraints(target),
        SCRIPT: project_tcl(target),
        "device.json": device_file(target),
    }
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:ID_DIGITS]
    folder = root / target.name / digest
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    for name, text in files.items():
        (scratch / name).write_text(text)
    scratch.chmod(0o755)
    scratch.rename(folder)
    return folder


def device_file(target: XilinxTarget) -> str:
    """What the host opens: ``device="mapped:device.json"`` (:class:`sterna.link.mapped.MappedTransport`)."""
    lowest = min(target.bases) if "map" in target.memory else 0  # a mapped file begins where the memory does
    bases = target.bases[: target.stripes]  # the memories of further clusters follow
    fields = {
        "board": target.name,
        "clock": target.clock,
        "config": asdict(target.config),
        "registers": target.registers,
        "memory": target.memory,
        "stripe": {"bases": [base - lowest for base in bases], "part": target.part_bytes * target.config.clusters},
    }
    return json.dumps(fields, indent=1) + "\n"


def build(folder: Path) -> None:
    """Run Vivado in ``folder``; it reports for itself.

    Raises:
        SternaError: Vivado is not installed, or ended with an error.
    """
    if shutil.which(VIVADO[0]) is None:
        raise SternaError(
            f"Vivado is not installed, so no bitstream was made; where it is, run: cd {folder} && {' '.join(VIVADO)}"
        )
    ended = subprocess.run(VIVADO, cwd=folder, check=False)
    if ended.returncode:
        raise SternaError(f"Vivado ended with status {ended.returncode}; its log is {folder / 'vivado.log'}")
