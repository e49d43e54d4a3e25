"""Elaboration of a top level into what the tools read, and the id of a build."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sterna_boards import carry
from sterna_boards.collisions import script

TOP = "top"  # name of the design in all files
ID_BYTES = 16  # of the build id, which the gateware shows as words of 32 bits

# The default router took over 20 minutes on a whole ecpix5 without an end in sight.
ROUTER = ("--router", "router2")
# abc, because abc9 of the pinned version stops with an error on the whole accelerator; -nowidelut, because multiplexers
# of LUTs cost more sites than they save time here.
SYNTHESIS = """\
read_rtlil {top}.il
{read}
synth_ecp5 -top {top} -nowidelut -run begin:map_luts
opt_clean
abc -lut 4 -dress
synth_ecp5 -top {top} -nowidelut -run map_cells:
write_json {top}.json
"""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something to build: a board, or a small design in a test."""

    name: str
    platform: Callable[[], Any]  # a fresh Amaranth platform with the Trellis tools
    top: Callable[[int], Any]  # the top level that carries this build id; else the same in every call
    clock: float  # hertz that some clock must be constrained to: that of the system
    crossing: float | None = None  # hertz at which paths between clocks must work too; None: no clocks belong together
    # What is known of the memories in which modules: see ``sterna_boards.collisions``.
    memories: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Design:
    """An elaborated top level."""

    files: dict[str, str]  # by name: RTLIL, Verilog, constraints, script
    place: tuple[str, ...]  # arguments of nextpnr without seed and report
    pack: tuple[str, ...]  # arguments of ecppack

    def digest(self, versions: dict[str, str]) -> int:
        """The build id if this is the design with id zero: of everything that decides the bitstream but the seed."""
        trim = inspect.getsource(carry)  # between synthesis and placement
        key = {"files": self.files, "trim": trim, "place": self.place, "pack": self.pack, "versions": versions}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).digest()
        return int.from_bytes(digest[:ID_BYTES], "big")


def elaborate(target: Target, build_id: int) -> Design:
    """The design of ``target`` with ``build_id`` in it; some seconds for a whole system."""
    # Without source positions: they hold the paths of this machine.
    plan = target.platform().prepare(target.top(build_id), name=TOP, emit_src=False)
    files = {
        name: text.decode() if isinstance(text, bytes) else text
        for name, text in plan.files.items()
        if name in (f"{TOP}.il", f"{TOP}.lpf") or (name.endswith(".v") and name != f"{TOP}.debug.v")
    }
    read = [f"read_verilog {name}" for name in sorted(files) if name.endswith(".v")]
    files[f"{TOP}.ys"] = SYNTHESIS.format(read="\n".join([*read, script(target.memories)]), top=TOP)
    commands = json.loads(plan.files[f"build_{TOP}.json"])["commands"]
    arguments = {tool: rest for tool, *rest in commands}
    return Design(
        files=files,
        place=(*arguments["nextpnr-ecp5"], *ROUTER),
        pack=tuple(_without(arguments["ecppack"], "--svf")),
    )


def _without(arguments: list[str], option: str) -> list[str]:
    """``arguments`` without ``option`` and its value."""
    if option not in arguments:
        return arguments
    place = arguments.index(option)
    return arguments[:place] + arguments[place + 2 :]
