"""The benchmark of the CPU engine measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import write_checkpoint

from sterna.cli import bench_cpu
from sterna.engines.engine import Step
from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.importer.checkpoint import open_tensors
from sterna.model.geometry import Geometry
from sterna.model.manifest import WEIGHTS_FILE
from sterna.model.store import Model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench")
    write_checkpoint(path / "checkpoint", hidden=37, layers=2, inner=53, vocab=61, seed=3)
    import_checkpoint(path / "checkpoint", path / "model", calibrate=False)
    return path / "model"


def test_fields(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--threads", "1", "--tokens", "2", "--repeats", "3", "--check", "2", "--json"]
    assert bench_cpu.main([str(model), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["threads"], found["checked_tokens"]) == (1, 2)
    assert found["packed_bytes"] == (model / WEIGHTS_FILE).stat().st_size
    for name in bench_cpu.ENGINES:
        time = found[f"{name}_ms_per_token"]
        assert 0 < time["least"] <= time["median"] <= time["most"]
        resident = found[f"{name}_resident_bytes"]
        assert found["packed_bytes"] < resident <= found[f"{name}_peak_bytes"]
        assert found[f"{name}_resident_ratio"] == pytest.approx(resident / found["packed_bytes"])
    low = found["reference_ms_per_token"]["least"] / found["cpu_ms_per_token"]["most"]
    high = found["reference_ms_per_token"]["most"] / found["cpu_ms_per_token"]["least"]
    assert low <= found["speed_ratio"] <= high
    assert found["reference_resident_bytes"] > found["cpu_resident_bytes"]  # each in its own process: one has PyTorch


class Clock:
    """A worker that takes the seconds it is told, and notes its turns."""

    def __init__(self, seconds: list[float], turns: list[Clock]) -> None:
        self.seconds, self.turns = iter(seconds), turns

    def ask(self, question: object) -> object:
        if question is None:
            return {"resident_bytes": 300, "peak_bytes": 400}
        self.turns.append(self)
        return next(self.seconds)

    def receive(self) -> str:
        return "loaded"

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_ratio_is_of_the_measured_times(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turns: list[Clock] = []
    clocks = [Clock([9, 0.2, 0.4, 0.2], turns), Clock([1, 0.6, 1.6, 1.0], turns)]
    cpu, reference = clocks
    waiting = iter(clocks)
    monkeypatch.setattr(bench_cpu, "_Worker", lambda *_: next(waiting))
    assert bench_cpu.main([str(model), "--tokens", "2", "--repeats", "3", "--check", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cpu_ms_per_token"] == {"median": 100, "least": 100, "most": 200}
    assert found["reference_ms_per_token"] == {"median": 500, "least": 300, "most": 800}
    assert found["speed_ratio"] == pytest.approx(4)  # of 3, 4 and 5
    assert turns == [cpu, reference, reference, cpu, cpu, reference, reference, cpu]


def test_stops_where_the_integers_are_not_goldens(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Model.open(model)
    bench_cpu.check(stored, [3, 4], threads=1)
    true = bench_cpu.CpuEngine.step

    def wrong(self: bench_cpu.CpuEngine, token: int, *, logits: bool = False) -> Step:
        step = true(self, token, logits=logits)
        if step.logits is not None and token == 4:
            step.logits[-1] += 1
        return step

    monkeypatch.setattr(bench_cpu.CpuEngine, "step", wrong)
    with pytest.raises(SternaError, match=r"token 4 at position 1: .* not golden's"):
        bench_cpu.check(stored, [3, 4], threads=1)


def test_import(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    tiny = Geometry(hidden=40, layers=1, inner=64, vocab=64, rms_eps=1e-6)
    monkeypatch.setitem(bench_cpu.GEOMETRIES, "tiny", tiny)
    assert bench_cpu.main(["tiny", "--import", "--no-calibrate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"source_bytes", "calibrated", "import_peak_bytes"}
    assert found["calibrated"] is False
    assert found["import_peak_bytes"] > 20e6  # an interpreter with NumPy
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_tensor_leaves_memory_when_it_is_imported(model: Path) -> None:
    tensors = open_tensors(model.parent / "checkpoint")
    file = str(model.parent / "checkpoint" / "model.safetensors")
    maps = Path("/proc/self/maps")
    assert file not in maps.read_text()
    bits = next(iter(tensors.values())).read()
    assert file in maps.read_text()
    del bits
    assert file not in maps.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "0"], "--repeats must be a positive integer"),
        (["--threads", "0"], "threads must be a positive integer"),
        (["--check", "-1"], "--check must not be negative"),
        (["--import"], "--import takes one of 8m"),
    ],
)
def test_refuses(model: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_cpu.main([str(model), *options]) == 1
    assert message in capsys.readouterr().err


def test_an_error_in_a_process_is_raised(tmp_path: Path) -> None:
    with pytest.raises(SternaError), bench_cpu._Worker(bench_cpu._cpu, tmp_path, 1) as worker:
        worker.receive()
