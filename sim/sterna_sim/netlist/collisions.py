"""RTL as synthesis takes it: where it is told that a read does not matter, that read gives wrong bits."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sterna.errors import SternaError
from sterna_boards.collisions import script
from sterna_sim.netlist.model import CALL

# Yosys writes an unknown word in the cycle after such a read, and as it begins; nothing else in our RTL is unknown.
_UNKNOWN = re.compile(r"<= (\d+)'hx+;")


def colliding_verilog(rtlil: str, blocks: Mapping[str, Mapping[str, str]]) -> str:
    """Verilog of ``rtlil``, in which a read of a word that is being written gives ones where ``blocks`` excuses it.

    Args:
        rtlil: What Amaranth writes.
        blocks: As in :func:`sterna_boards.collisions.script`.

    Raises:
        SternaError: Yosys is not installed, or a memory is missing.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "rtl.il").write_text(rtlil)
        (work / "rtl.ys").write_text(
            f"read_rtlil rtl.il\n{script(blocks)}\nproc -nomux -norom\nmemory_collect\nwrite_verilog -norename rtl.v\n"
        )
        command = [sys.executable, "-c", CALL, "-q", "rtl.ys"]
        ended = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if ended.returncode:
            reason = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            raise SternaError(f"Yosys does not take the memories: {reason}")
        return _UNKNOWN.sub(r"<= {\1{1'b1}};", (work / "rtl.v").read_text())
