"""``sterna compare``: what it counts is what the models hold, and the models take turns."""

from __future__ import annotations

import json
import re

import pytest
from checkpoints import write_checkpoint

from sterna.cli.main import main
from sterna.engines.speed import in_turns
from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.model.integer import IntegerModel
from sterna.model.store import Model

SIZES = {"hidden": 43, "layers": 3, "inner": 58, "vocab": 71, "seed": 3}
RESERVOIR = {"seed": 1, "shared": True, "fixed": {"f": [0, 1], "gate": [0]}, "mixer_only": [1]}


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    for name, reservoir in (("twin", None), ("reservoir", RESERVOIR)):
        import_checkpoint(write_checkpoint(folder / "source" / name, **SIZES, reservoir=reservoir), folder / name)
    (folder / "source" / "twin" / "notes.json").write_text(
        '{"valid_bits_per_byte": 1.25, "seconds": 100.0, "device": "CPU", "config": {}}'
    )
    (folder / "source" / "reservoir" / "notes.json").write_text('{"valid_bits_per_byte": 1.3, "seconds": 80.0}')
    return folder


def compare(twins, *options):
    return main(["compare", str(twins / "twin"), str(twins / "reservoir"), "--repeats", "3", "--tokens", "2", *options])


def test_json_holds_what_the_models_are(twins, capsys):
    checkpoints = [str(twins / "source" / name) for name in ("twin", "reservoir")]
    assert compare(twins, "--json", "--threads", "1", "--checkpoints", *checkpoints) == 0
    found = json.loads(capsys.readouterr().out)
    for name, entry in zip(("twin", "reservoir"), found["models"], strict=True):
        model = Model.open(twins / name)
        integers = IntegerModel.from_model(model)
        assert entry["model"] == str(twins / name)
        assert entry["parameters"] == model.geometry.parameters
        assert entry["generated_weights"] == model.geometry.generated_weights
        assert entry["file_bytes"] == len((twins / name / "model.safetensors").read_bytes())
        assert entry["weight_bytes"] == integers.weight_bytes
        assert entry["stored_weight_bytes"] == integers.stored_weight_bytes
        times = entry["seconds_per_token"]
        assert len(times["repeats"]) == 3 and min(times["repeats"]) > 0
        assert sorted(times["repeats"]) == [times["low"], times["median"], times["high"]]
    ordinary, reservoir = found["models"]
    assert reservoir["file_bytes"] < ordinary["file_bytes"]
    assert reservoir["stored_weight_bytes"] < reservoir["weight_bytes"] < ordinary["weight_bytes"]
    assert found["time_ratio"] > 0
    assert (ordinary["training"]["seconds"], reservoir["training"]["seconds"]) == (100.0, 80.0)
    assert ordinary["training"]["memory_bytes"] is None


def test_the_table_shows_both_and_the_change(twins, capsys):
    checkpoints = [str(twins / "source" / name) for name in ("twin", "reservoir")]
    assert compare(twins, "--checkpoints", *checkpoints) == 0
    text = capsys.readouterr().out
    assert re.search(r"^ +twin +reservoir +B against A$", text, re.MULTILINE)
    assert re.search(r"^validation, bits a byte +1\.2500 +1\.3000 +\+4\.0 %$", text, re.MULTILINE)
    assert re.search(r"^training, seconds +100\.0 +80\.0 +-20\.0 %$", text, re.MULTILINE)
    assert re.search(r"^training, device +CPU +- *$", text, re.MULTILINE)
    assert re.search(r"^generated weights +0 +8,686 *$", text, re.MULTILINE)
    assert re.search(r"^cpu engine, ms a token +[\d.]+ \([\d.]+-[\d.]+\) .* [+-][\d.]+ %$", text, re.MULTILINE)
    assert len({len(line) for line in text.splitlines()}) == 1


def test_without_checkpoints_nothing_is_said_of_training(twins, capsys):
    assert compare(twins) == 0
    assert "training," not in capsys.readouterr().out


def test_help_has_examples(capsys):
    assert main(["compare", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: sterna compare") and "--checkpoints runs/twin runs/reservoir" in text


def test_errors(twins, capsys):
    assert compare(twins, "--checkpoints", str(twins / "source" / "twin"), str(twins)) == 2
    assert "tells nothing of its training: notes.json is missing" in capsys.readouterr().err
    for option in ("--repeats", "--tokens", "--threads"):
        assert compare(twins, option, "0") == 2
        assert f"{option[2:]} must be a positive integer" in capsys.readouterr().err


class Recorder:
    """An engine that notes who was asked for which token."""

    def __init__(self, name, log, vocab):
        self.name, self.log, self.geometry = name, log, type("Sizes", (), {"vocab": vocab})

    def reset(self):
        self.log.append((self.name, None))

    def step(self, token):
        self.log.append((self.name, token))


def test_engines_take_turns_on_the_same_tokens():
    log: list[tuple[str, int | None]] = []
    counted: list[int] = []
    engines = [Recorder("a", log, 1000), Recorder("b", log, 7)]
    times = in_turns(engines, tokens=5, repeats=4, progress=counted.append)
    assert [len(entry) for entry in times] == [4, 4]
    assert counted == [5] * 10
    starts = [index for index, (_, token) in enumerate(log) if token is None]
    assert [log[start][0] for start in starts] == list("abbaabbaab")
    texts = [[token for _, token in log[start + 1 : start + 6]] for start in starts]
    assert all(text == texts[0] for text in texts) and max(texts[0]) < 7
    with pytest.raises(SternaError, match="tokens must be a positive integer"):
        in_turns(engines, tokens=0, repeats=1)
