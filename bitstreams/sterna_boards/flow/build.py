"""The steps of a build, and where each keeps what it made.

``FOLDER/BOARD/ID/`` holds a folder for each step, made under a temporary name and renamed when the step is done, so
that a step is never repeated: ``synthesis`` (netlist) and ``seed-N`` (place and route). ``FOLDER/BOARD/BOARD.bit`` and
``report.json`` are the last build that met timing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sterna.errors import SternaError
from sterna_boards.carry import trim
from sterna_boards.flow import tools
from sterna_boards.flow.design import TOP, Design, Target, elaborate
from sterna_boards.flow.report import Attempt, Report, blocks, clocks, utilisation

Note = Callable[[str], None]
SEEDS = (1, 2, 3)
TIMING = "timing.json"  # nextpnr's report
REPORT = "report.json"


def identify(target: Target) -> tuple[int, dict[str, str]]:
    """The build id of ``target``, and the versions of the tools.

    Raises:
        SternaError: a tool is not installed, or the top level cannot be made.
    """
    versions = tools.versions()
    return elaborate(target, 0).digest(versions), versions


def build(target: Target, *, folder: Path, seeds: Sequence[int] = SEEDS, note: Note = lambda text: None) -> Report:
    """A bitstream of ``target`` that meets timing, from the first of ``seeds`` that does; stored ones are not rebuilt.

    Args:
        target: What to build.
        folder: Where builds are kept.
        seeds: To try in this order.
        note: Called with a few words before each step.

    Raises:
        SternaError: a tool is missing or failed, or no seed meets timing; then no bitstream is left in ``folder``.
    """
    note(f"{target.name}: elaborating")
    build_id, versions = identify(target)
    board, kept = folder / target.name, folder / target.name / f"{build_id:032x}"
    stored = kept / REPORT
    if stored.exists():
        report = Report.read(stored)
        if report.seed in seeds:
            note(f"{target.name}: build {report.build_id} is stored")
            _publish(kept, board, target.name)
            return report
    for old in (board / f"{target.name}.bit", board / REPORT):
        old.unlink(missing_ok=True)
    design = elaborate(target, build_id)

    netlist = _step(kept / "synthesis", lambda work: _synthesise(design, work), note)
    attempts: list[Attempt] = []
    for seed in seeds:

        def place(work: Path, seed: int = seed) -> None:
            _place(design, netlist, work, seed, target)

        placed = _step(kept / f"seed-{seed}", place, note)
        attempts.append(Attempt(seed=seed, seconds=_seconds(placed), clocks=clocks(placed / TIMING, target.crossing)))
        if attempts[-1].met:
            break
    else:
        name, clock = max(attempts, key=lambda attempt: attempt.margin).worst
        raise SternaError(
            f"{target.name} misses timing: clock {name} reaches {clock.reached:.1f} MHz of the {clock.required:.1f} "
            f"required, at best of seeds {', '.join(map(str, seeds))}; try others with --seed"
        )
    report = Report(
        board=target.name,
        build_id=f"{build_id:032x}",
        bitstream_sha256=hashlib.sha256((placed / f"{TOP}.bit").read_bytes()).hexdigest(),
        seed=attempts[-1].seed,
        attempts=attempts,
        utilisation=utilisation(placed / TIMING),
        blocks=blocks(netlist / f"{TOP}.json", TOP),
        tools=versions,
        synthesis_seconds=_seconds(netlist),
    )
    shutil.copyfile(placed / f"{TOP}.bit", kept / f"{target.name}.bit")
    report.write(stored)
    _publish(kept, board, target.name)
    return report


def _step(folder: Path, make: Callable[[Path], None], note: Note) -> Path:
    """``folder``, filled by ``make`` in a temporary one unless it is there.

    Two builds at once each fill their own; the first that is done leaves its folder for both. Of a step that failed
    only the logs stay, in a folder of that name with ``.failed`` behind it, until the next attempt.
    """
    if folder.exists():
        return folder
    note(f"{folder.parents[1].name}: {folder.name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    failed = folder.with_name(f"{folder.name}.failed")
    shutil.rmtree(failed, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    started = time.monotonic()
    try:
        make(work)
        (work / "seconds").write_text(f"{time.monotonic() - started:.1f}\n")
        try:
            work.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    except SternaError as error:
        failed.mkdir(exist_ok=True)
        for log in work.glob("*.log"):
            log.replace(failed / log.name)
        raise SternaError(str(error).replace(str(work), str(failed))) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _seconds(folder: Path) -> float:
    return float((folder / "seconds").read_text())


def _synthesise(design: Design, work: Path) -> None:
    for name, text in design.files.items():
        (work / name).write_text(text)
    tools.run("yosys", ["-t", f"{TOP}.ys"], folder=work, log="yosys.log", label="synthesis")
    path = work / f"{TOP}.json"
    netlist = json.loads(path.read_text())
    trim(netlist, TOP)
    path.write_text(json.dumps(netlist))


def _place(design: Design, netlist: Path, work: Path, seed: int, target: Target) -> None:
    """Place, route, and pack if timing is met."""
    for name in (f"{TOP}.json", f"{TOP}.lpf"):
        os.link(netlist / name, work / name)
    # A miss is found in the report, which says by how much; nextpnr would only stop.
    arguments = [*design.place, "--seed", str(seed), "--report", TIMING, "--timing-allow-fail"]
    tools.run("nextpnr-ecp5", arguments, folder=work, log="nextpnr.log", label=f"place and route, seed {seed}")
    found = clocks(work / TIMING, target.crossing)
    required = target.clock
    if not any(clock.required >= required / 1e6 * (1 - 1e-4) for clock in found.values()):
        raise SternaError(
            f"no clock is constrained to the {required / 1e6:g} MHz of the system (constrained are "
            f"{', '.join(f'{name}: {clock.required:g} MHz' for name, clock in found.items()) or 'none'}); "
            "constrain the clock pin"
        )
    if all(clock.met for clock in found.values()):
        tools.run("ecppack", design.pack, folder=work, log="ecppack.log", label="packing")
    for name in (f"{TOP}.json", f"{TOP}.lpf", f"{TOP}.config"):
        (work / name).unlink()


def _publish(kept: Path, board: Path, name: str) -> None:
    """Copies bitstream and report to where the last build is looked for."""
    for source, goal in ((kept / f"{name}.bit", board / f"{name}.bit"), (kept / REPORT, board / REPORT)):
        shutil.copyfile(source, work := goal.with_name(f".{goal.name}"))
        work.replace(goal)
