# amaranth: UnusedElaboratable=no
"""``python -m sterna_boards.area``: LUT sites of whole accelerators as Yosys maps them, and what a model makes of them.

``sterna.explore.area`` has the model; its weights come from here (``--fit``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from amaranth.back import rtlil

from sterna.errors import SternaError
from sterna.explore.area import LUT_TERMS, lut_sites, lut_terms
from sterna.spec.config import HardwareConfig, preset
from sterna_boards.flow import tools
from sterna_boards.flow.design import SYNTHESIS, TOP
from sterna_boards.flow.report import COLUMNS, blocks
from sterna_hw.accelerator import Accelerator

_EPILOG = """\
examples:
  python -m sterna_boards.area                    every build of the fit, half a minute each, once
  python -m sterna_boards.area --fit              and the weights of the model that suit them best
  python -m sterna_boards.area ulx3s ecpix5 --json

The netlists' figures are kept in build/area; neither placed nor routed. nextpnr adds about 8 % to LUT sites."""


# ecpix5 with memories of a small model: of their depths LUTs see only the multiplexers of many blocks.
_SMALL = {
    "beat_bytes": 16,
    "word_bytes": 16,
    "vector_width": 4,
    "tile_rows": 2048,
    "max_rows_per_word": 8,
    "activation_depth": 4096,
    "vector_depth": 4096,
    "param_depth": 4096,
    "state_depth": 4096,
    "prefetch_words": 512,
}


@dataclass(frozen=True)
class Area:
    """What Yosys makes of an accelerator for ECP5."""

    config: HardwareConfig
    used: dict[str, int]  # by column of a build's report

    @property
    def sites(self) -> int:
        """LUT sites of the netlist."""
        return self.used["LUT sites"]

    @property
    def error(self) -> float:
        """Of the model, as a share of what is there."""
        return lut_sites(self.config) / self.sites - 1


def builds() -> Iterator[HardwareConfig]:
    """What the model is fitted to: every parameter that takes logic, by itself and with others."""
    yield from map(preset, ("ulx3s", "ecpix5", "butterstick"))
    yield from _variants(
        {"word_bytes": 32},
        {"vector_width": 1},
        {"vector_width": 8},
        {"max_rows_per_word": 2},
        {"max_rows_per_word": 16},
        {"slots": 2},
        {"slots": 4, "vector_width": 2},
        {"word_bytes": 64, "beat_bytes": 32, "vector_width": 8, "max_rows_per_word": 16},
        {"word_bytes": 16, "beat_bytes": 8},
        {"slots": 2, "word_bytes": 32, "vector_width": 2},
        {"slots": 8, "word_bytes": 8, "beat_bytes": 8, "vector_width": 1, "max_rows_per_word": 2},
        {"word_bytes": 128, "beat_bytes": 64, "vector_width": 16, "max_rows_per_word": 16, "burst_beats": 32},
    )


def _variants(*changes: dict[str, int]) -> Iterator[HardwareConfig]:
    for change in changes:
        name = ", ".join(f"{field} {value}" for field, value in change.items())
        # The checker holds the mapping against all fields, those of other types too.
        yield HardwareConfig(name=name, **{**_SMALL, **change})  # type: ignore[arg-type]


def measure(config: HardwareConfig, folder: Path) -> Area:
    """Synthesise the accelerator of ``config``, or read what came of it before; about a minute.

    Raises:
        SternaError: Yosys is missing or failed.
    """
    text = rtlil.convert(Accelerator(config=config), name=TOP, emit_src=False)
    work = folder / hashlib.sha256(text.encode()).hexdigest()[:20]
    kept = work / "used.json"
    if not kept.exists():
        work.mkdir(parents=True, exist_ok=True)
        (work / f"{TOP}.il").write_text(text)
        (work / f"{TOP}.ys").write_text(SYNTHESIS.format(read="", top=TOP).lstrip())
        tools.run("yosys", ["-q", f"{TOP}.ys"], folder=work, log="yosys.log", label=f"synthesis of {config.name}")
        used = blocks(work / f"{TOP}.json", TOP)[""]
        scratch = kept.with_suffix(".part")
        scratch.write_text(json.dumps(used) + "\n")
        scratch.replace(kept)
        (work / f"{TOP}.json").unlink()
        (work / f"{TOP}.il").unlink()
    return Area(config, json.loads(kept.read_text()))


def fit(areas: Sequence[Area]) -> dict[str, float]:
    """The weights by which the squares of the relative errors are smallest."""
    weights, *_ = np.linalg.lstsq(_shares(areas), np.ones(len(areas)), rcond=None)
    return dict(zip(LUT_TERMS, weights.tolist(), strict=True))


def errors(areas: Sequence[Area]) -> list[float]:
    """Of each build by the weights that the others alone give."""
    found = []
    for number, area in enumerate(areas):
        weights = fit([*areas[:number], *areas[number + 1 :]])
        found.append(float(_shares([area])[0] @ list(weights.values())) - 1)
    return found


def _shares(areas: Sequence[Area]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Terms of the model by what is there, a row a build."""
    return np.array([[term / area.sites for term in lut_terms(area.config).values()] for area in areas])


def table(areas: Sequence[Area]) -> str:
    """Markdown: a line a build."""
    lines = [("build", "lanes", *COLUMNS, "LUT sites by the model", "error")]
    lines.append(("---",) * len(lines[0]))
    for area in areas:
        counts = [f"{area.used[column]:,}" for column in COLUMNS]
        modelled = (f"{lut_sites(area.config):,}", f"{100 * area.error:+.1f} %")
        lines.append((area.config.name, str(area.config.lanes), *counts, *modelled))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        "python -m sterna_boards.area",
        description="LUT sites of whole accelerators as Yosys maps them for ECP5, beside the model of sterna explore.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help="presets (default: the builds of the fit)")
    parser.add_argument("--fit", action="store_true", help="fit the weights of the model to these builds, and judge it")
    parser.add_argument("--out", type=Path, default=Path("build/area"), help="folder (build/area)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, not a table")
    options = parser.parse_args(arguments)
    try:
        chosen = [preset(name) for name in options.configs] or list(builds())
        if options.fit and len(chosen) <= len(LUT_TERMS):
            raise SternaError(f"a fit of {len(LUT_TERMS)} weights takes more than {len(chosen)} builds: name none")
        areas = [measure(config, options.out) for config in chosen]
    except SternaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    found: dict[str, object] = {"builds": [asdict(area) | {"error": area.error} for area in areas]}
    if options.fit:
        found |= {"weights": fit(areas), "errors_left_out": errors(areas)}
    if options.json:
        print(json.dumps(found))
        return 0
    print(table(areas))
    if options.fit:
        print()
        for term, weight in fit(areas).items():
            print(f"{term}: {weight:.1f}")
        worst = max(map(abs, errors(areas)))
        print(f"largest error of a build that the fit has not seen: {100 * worst:.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
