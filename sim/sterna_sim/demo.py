"""``make sim``: text from the RTL, each integer of each token compared with the golden model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sterna.cli.progress import progress
from sterna.errors import SternaError
from sterna.model.store import Model
from sterna.runtime.tokenizer import Tokenizer
from sterna.spec.config import PRESETS, preset
from sterna_sim.cosim import CoSimulation
from sterna_sim.memory import MODELS

MODEL = Path(__file__).resolve().parents[1] / "models" / "gutenberg-31m"
PROMPT = "It was a dark and stormy night;"


def main() -> int:
    """Run the demonstration; 0 when every integer was equal."""
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="stored model (default: the one that is shipped)")
    parser.add_argument("--prompt", default="", help=f"text to continue (default: {PROMPT!r})")
    parser.add_argument("--tokens", type=int, default=32, help="tokens to generate (default: 32)")
    parser.add_argument("--config", default="sim-small", choices=PRESETS, help="build of the accelerator")
    parser.add_argument("--memory", default="ideal", choices=MODELS, help="memory behind it (default: ideal)")
    parser.add_argument("--waves", type=Path, help="write the waves of the whole run to this FST file")
    arguments = parser.parse_args()
    if arguments.tokens < 1:
        parser.error("--tokens must be at least 1")
    try:
        _run(arguments)
    except SternaError as error:
        print(f"sim: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(arguments: argparse.Namespace) -> None:
    model = Model.open(arguments.model)
    tokenizer = Tokenizer.open(model.path, bos_id=model.bos_id)
    if tokenizer is None:
        raise SternaError(f"{arguments.model} has no tokenizer; import a checkpoint that has one")
    prompt = tokenizer.encode(arguments.prompt or PROMPT, start=True)
    config = preset(arguments.config)

    def note(words: str) -> None:
        print(f"sim: {words}", file=sys.stderr, flush=True)

    ids, cycles, efficiency, checked = list(prompt), [], [], 0
    with CoSimulation(model, config, memory=arguments.memory, waves=arguments.waves, progress=note) as cosim:
        bar = progress(total=len(prompt) + arguments.tokens - 1, label="tokens through the RTL", unit="token")
        for token, is_new in cosim.generate(prompt, arguments.tokens):
            checked += 1
            cycles.append(token.cycles)
            efficiency.append(token.efficiency)
            if is_new:
                ids.append(token.sampled[0])
            bar.update(1)
        bar.close()
    print(tokenizer.decode(ids))
    mean_cycles, mean_efficiency = sum(cycles) / len(cycles), sum(efficiency) / len(efficiency)
    print(
        f"sim: {checked} tokens, {checked}/{checked} bit-exact against golden, {mean_cycles:.0f} cycles/token, "
        f"{100 * mean_efficiency:.1f} % of the memory roofline"
    )


if __name__ == "__main__":
    sys.exit(main())
