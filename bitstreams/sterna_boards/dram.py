"""DRAM controllers that LiteDRAM generates from recipes.

A core is kept under the hash of its recipe and of the pinned versions of LiteDRAM, LiteX and Migen (extra
``bitstream``), so nothing generated is in the repository.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sterna.errors import SternaError
from sterna_boards.recipe import DramCore, DramRecipe

GENERATORS = ("litedram", "litex", "migen")  # packages whose version decides the text


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
    for path in (Path(__file__).with_name(name) for name in ("dram.py", "recipe.py", "litedram_core.py")):
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
