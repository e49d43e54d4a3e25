"""``python -m sterna_boards.datapath``: what a ternary lane costs, from the lanes alone, synthesised and placed.

The cost of a lane is the slope between two widths of word: what does not grow with it (control, row sums) stays out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from amaranth.back import rtlil

from sterna.errors import SternaError
from sterna.spec.config import HardwareConfig, preset
from sterna_boards.carry import trim
from sterna_boards.collisions import LANES, script
from sterna_boards.flow import tools
from sterna_hw.lanes import TernaryLanes

TOP = "dut"
DEVICE = ("--um5g-85k", "--package", "CABGA554")  # the LFE5UM5G-85F of the ECPIX-5
REQUIRED = 150.0  # MHz
LANE_SITES = 8.0  # most LUT sites of a further lane
NETLIST, TIMING = "netlist.json", "timing.json"

_READ = f"""read_rtlil {TOP}.il
{script({TOP: LANES})}
"""
_ECP5 = f"""{_READ}synth_ecp5 -top {TOP} -nowidelut -run begin:map_luts
opt_clean
abc -lut 4 -dress
synth_ecp5 -top {TOP} -nowidelut -run map_cells:
write_json {NETLIST}
"""
_ULTRASCALE = f"""{_READ}synth_xilinx -family xcup -top {TOP} -flatten -noiopad -noclkbuf
tee -q -o cells.json stat -json
"""
_EPILOG = """\
examples:
  python -m sterna_boards.datapath                         words of 16 and 32 bytes, a minute
  python -m sterna_boards.datapath --words 8 16 32 --seed 1 2 3 --json

The report is kept as build/datapath/report.json. exit codes: 0 goals met, 1 missed, 2 not measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """The lanes of one width, on an ECP5-85F."""

    lanes: int
    sites: int  # TRELLIS_COMB: LUTs and halves of carry cells
    flip_flops: int
    block_rams: int
    clock: dict[int, float]  # MHz that placement reached, by seed
    ultrascale_luts: int  # as Yosys maps the same lanes to UltraScale+: not placed

    @property
    def best(self) -> float:
        """MHz of the best seed."""
        return max(self.clock.values())


def lanes_of(word_bytes: int, rows_per_word: int) -> HardwareConfig:
    """The lanes of ``ecpix5`` with another width."""
    base = preset("ecpix5")
    return dataclasses.replace(
        base, word_bytes=word_bytes, beat_bytes=min(base.beat_bytes, word_bytes), max_rows_per_word=rows_per_word
    )


def synthesise(config: HardwareConfig, folder: Path) -> Path:
    """The netlist of the lanes for ECP5, as it is placed; some seconds.

    Raises:
        SternaError: Yosys is missing or failed.
    """
    _yosys(config, folder, _ECP5, "ecp5")
    path = folder / NETLIST
    netlist = json.loads(path.read_text())
    trim(netlist, TOP)
    path.write_text(json.dumps(netlist))
    return path


def measure(config: HardwareConfig, folder: Path, seeds: Sequence[int]) -> Measurement:
    """Synthesise, then place and route with each of ``seeds``; half a minute each.

    Raises:
        SternaError: a tool is missing or failed.
    """
    netlist = synthesise(config, folder)
    clock = {}
    for seed in seeds:
        arguments = [*DEVICE, "--json", netlist.name, "--out-of-context", "--freq", str(REQUIRED)]
        arguments += ["--seed", str(seed), "--report", TIMING, "--timing-allow-fail"]
        tools.run("nextpnr-ecp5", arguments, folder=folder, log="nextpnr.log", label=f"placing, seed {seed}")
        placed = json.loads((folder / TIMING).read_text())
        clock[seed] = min(each["achieved"] for each in placed["fmax"].values())
    used = {kind: int(each["used"]) for kind, each in placed["utilization"].items()}
    return Measurement(
        lanes=config.lanes,
        sites=used["TRELLIS_COMB"],
        flip_flops=used["TRELLIS_FF"],
        block_rams=used["DP16KD"],
        clock=clock,
        ultrascale_luts=_ultrascale(config, folder),
    )


def slopes(measurements: Sequence[Measurement]) -> list[dict[str, float]]:
    """Cost of a further lane between neighbouring widths."""
    kinds = ("sites", "flip_flops", "block_rams", "ultrascale_luts")
    return [
        {kind: (getattr(wide, kind) - getattr(narrow, kind)) / (wide.lanes - narrow.lanes) for kind in kinds}
        for narrow, wide in pairwise(measurements)
    ]


def table(measurements: Sequence[Measurement]) -> str:
    """Markdown: a line a width, and one a slope."""
    lines = [
        "| lanes | LUT sites | flip-flops | block RAMs | MHz, by seed | LUTs, UltraScale+ |",
        "|---|---|---|---|---|---|",
    ]
    for each in measurements:
        clock = ", ".join(f"{reached:.0f}" for reached in each.clock.values())
        lines.append(
            f"| {each.lanes} | {each.sites:,} | {each.flip_flops:,} | {each.block_rams} | {clock} "
            f"| {each.ultrascale_luts:,} |"
        )
    for (narrow, wide), slope in zip(pairwise(measurements), slopes(measurements), strict=True):
        lines.append(
            f"| a lane, {narrow.lanes} to {wide.lanes} | {slope['sites']:.2f} | {slope['flip_flops']:.1f} "
            f"| {slope['block_rams']:.2f} | | {slope['ultrascale_luts']:.2f} |"
        )
    return "\n".join(lines)


def _yosys(config: HardwareConfig, folder: Path, script: str, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{TOP}.il").write_text(rtlil.convert(TernaryLanes(config=config), name=TOP, emit_src=False))
    (folder / f"{name}.ys").write_text(script)
    tools.run("yosys", ["-q", f"{name}.ys"], folder=folder, log=f"{name}.log", label=f"synthesis for {name}")


def _ultrascale(config: HardwareConfig, folder: Path) -> int:
    """LUTs as Yosys maps the lanes to UltraScale+."""
    _yosys(config, folder, _ULTRASCALE, "ultrascale")
    cells = json.loads((folder / "cells.json").read_text())["design"]["num_cells_by_type"]
    return sum(int(count) for cell, count in cells.items() if cell.startswith("LUT"))


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m sterna_boards.datapath",
        description=f"Measure the ternary lanes alone: at most {LANE_SITES:g} LUT sites a lane, {REQUIRED:g} MHz.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--words", type=int, nargs="+", default=[16, 32], help="bytes of a word, five lanes each")
    parser.add_argument("--rows-per-word", type=int, default=8, help="most rows that share a word (8)")
    parser.add_argument("--seed", type=int, nargs="+", default=[1], help="of placement")
    parser.add_argument("--out", type=Path, default=Path("build/datapath"), help="folder (build/datapath)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, not as a table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep the report, print it."""
    options = make_parser().parse_args(arguments)
    try:
        if len(set(options.words)) < 2:
            raise SternaError("the cost of a lane is a slope: give two widths or more with --words")
        measurements = [
            measure(lanes_of(word, options.rows_per_word), options.out / f"word{word}", options.seed)
            for word in sorted(set(options.words))
        ]
    except SternaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report = {
        "device": DEVICE[0].lstrip("-"),
        "tools": tools.versions(),
        "rows_per_word": options.rows_per_word,
        "widths": [dataclasses.asdict(each) for each in measurements],
        "a_lane": slopes(measurements),
    }
    text = json.dumps(report, indent=1)
    unfinished = options.out / ".report.json"
    unfinished.write_text(text + "\n")
    unfinished.replace(options.out / "report.json")
    print(text if options.json else table(measurements))
    met = all(slope["sites"] <= LANE_SITES for slope in slopes(measurements))
    return 0 if met and all(each.best >= REQUIRED for each in measurements) else 1


if __name__ == "__main__":
    sys.exit(main())
