"""What test_train_parallel.py runs in two processes: ``torchrun ... parallel_runs.py CORPUS OUT``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from training import RUN, make, stop_after

from sterna.train.parallel import join


def main(corpus: Path, out: Path) -> None:
    """Train with both engines, stop a run of shards half-way, and go on with a run that one process left."""
    with join("cpu") as (ranks, _):
        assert ranks.world == 2
        for mode in ("ddp", "fsdp"):
            trainer = make(corpus, out / mode, replace(RUN, parallel=mode), ranks=ranks)
            assert trainer.run()
        assert (trainer.export(out / "checkpoint") is not None) == ranks.leads

        half = make(corpus, out / "half", replace(RUN, parallel="fsdp"), ranks=ranks)
        stop_after(6, half)
        assert not half.run() and half.step == 6

        for mode in ("ddp", "fsdp"):
            more = make(corpus, out / f"single-{mode}", replace(RUN, parallel=mode), ranks=ranks)
            more.resume()
            assert more.step == 6 and more.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
