"""Configurations: presets, files and settings over each other, and what is said of those that are wrong."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from training import make_corpus

from sterna.cli.main import main
from sterna.errors import SternaError
from sterna.model.geometry import Geometry
from sterna.train.config import TrainConfig
from sterna.train.configfile import PRESETS, build, preset, read_file, read_setting, to_toml

SIZES = {
    "tiny": (64, 2, 128, 512, 0.1495),
    "30m": (512, 8, 1536, 4096, 31.5),
    "30m-reservoir": (512, 9, 1536, 4096, 25.48),
    "125m": (768, 12, 2048, 32000, 134),
    "370m": (1024, 24, 2816, 32000, 374),
    "1.3b": (2048, 24, 5632, 32000, 1365),
    "2.7b": (2560, 32, 6912, 32000, 2702),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_their_sizes(name: str) -> None:
    config = preset(name)
    sizes = Geometry.from_config(config.model.to_dict())
    hidden, layers, inner, vocabulary, millions = SIZES[name]
    assert (sizes.hidden, sizes.layers, sizes.inner, sizes.vocab) == (hidden, layers, inner, vocabulary)
    assert sizes.parameters / 1e6 == pytest.approx(millions, rel=0.005)


def test_presets_of_the_paper_have_its_schedule() -> None:
    # arXiv 2406.02528: rates of 4e-3, 2.5e-3, 1.5e-3; a cosine, "then reduce the learning rate by half midway".
    for name, rate, tokens in (("370m", 4e-3, 15e9), ("1.3b", 2.5e-3, 100e9), ("2.7b", 1.5e-3, 100e9)):
        config = preset(name)
        assert (config.lr, config.halve_at, config.total_tokens) == (rate, 0.5, tokens)
        assert config.lr_at(0.499) == pytest.approx(2 * config.lr_at(0.501), rel=0.02)
        assert config.lr_at(1.0) == 0


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_printed_is_read_back(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--preset", name, "--print-config"]) == 0
    (tmp_path / "a.toml").write_text(capsys.readouterr().out)
    assert build(read_file(tmp_path / "a.toml")) == preset(name)


def test_a_reservoir_goes_through(tmp_path: Path) -> None:
    text = "[model]\nnum_hidden_layers = 4\n[model.reservoir]\nmixer_only = [1]\n[model.reservoir.fixed]\nf = [0, 2]\n"
    (tmp_path / "a.toml").write_text(text)
    config = build(read_file(tmp_path / "a.toml"))
    reservoir = config.model.reservoir
    assert reservoir is not None and reservoir.fixed == {"f": (0, 2)} and reservoir.mixer_only == (1,)
    (tmp_path / "b.toml").write_text(to_toml(config))
    assert build(read_file(tmp_path / "b.toml")) == config
    assert tomllib.loads(to_toml(config))["model"]["reservoir"]["fixed"] == {"f": [0, 2]}


def test_later_tables_go_over_earlier_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text("lr = 1\nbatch = 32\nmax_seconds = 60\n[model]\nhidden_size = 128\n")
    over = ["--set", "batch=64", "--set", "parallel = fsdp", "--set", "betas=[0.8, 0.9]", "--layers", "3"]
    assert main(["train", "--preset", "tiny", "--config", str(tmp_path / "a.toml"), *over, "--print-config"]) == 0
    values = tomllib.loads(capsys.readouterr().out)
    assert (values["lr"], values["batch"], values["parallel"], values["betas"]) == (1.0, 64, "fsdp", [0.8, 0.9])
    model = values["model"]
    assert (model["hidden_size"], model["num_hidden_layers"], model["vocab_size"]) == (128, 3, 512)
    assert values["max_seconds"] == 60 and values["context"] == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate = 1.0", r"a\.toml: there is no key 'learning_rate'"),
        ("micro_bach = 1", r"a\.toml: there is no key 'micro_bach'; near it are micro_batch"),
        ("[modle]\nhidden_size = 1", r"a\.toml: there is no key 'modle'; near it are model"),
        ("[model]\nhiden_size = 64", r"a\.toml \[model\]: there is no key 'hiden_size'; near it are hidden_size"),
        ("xyz = 1", r"there is no key 'xyz'; there are model, context, batch,"),
        ("batch = 8.5", r"a\.toml: batch must be an integer, not 8\.5"),
        ("batch = true", r"a\.toml: batch must be an integer, not True"),
        ("lr = '1e-3'", r"a\.toml: lr must be a number, not '1e-3'"),
        ("bf16 = 1", r"a\.toml: bf16 must be true or false, not 1"),
        ("betas = [0.9]", r"a\.toml: betas must be a list of 2 values, not \[0\.9\]"),
        ("betas = [0.9, 'a']", r"a\.toml: betas must be a number, not 'a'"),
        ("checkpointing = 'some'", r"a\.toml: checkpointing must be one of none, selective, full, not 'some'"),
        ("model = 3", r"a\.toml: model must be a table, not 3"),
        ("[model]\nhidden_size = '64'", "hidden_size must be a positive integer, not '64'"),
        ("batch = 0", r"a\.toml: batch must be a positive integer, not 0"),
        ("lr = -1", r"a\.toml: lr must be positive, not -1\.0"),
        ("halve_at = 2", r"a\.toml: halve_at is a fraction of the run in \[0, 1\]"),
        ("warmup = 1.0", "warmup is a fraction"),
        ("betas = [0.9, 1.0]", "betas must lie in"),
        ("weight_decay = -0.1", "weight_decay must not be negative"),
        ("lr = ", r"a\.toml is not TOML: Invalid value"),
        ("lr = 1\nlr = 2", r"a\.toml is not TOML: Cannot overwrite a value"),
        ("[model.reservoir]\nfixed = 3", "fixed is no table"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(SternaError, match=message):
        build(read_file(tmp_path / "a.toml"), source=str(tmp_path / "a.toml"))


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(SternaError, match="cannot be read: No such file"):
        read_file(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_bytes(b"\xff")
    with pytest.raises(SternaError, match=r"a\.toml is not TOML"):
        read_file(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "--set lr: write KEY=VALUE, for example --set lr=1e-3"),
        ("lr=fast", "--set lr=fast: lr must be a number, not 'fast'"),
        ("model.depth=3", r"--set model\.depth=3 \[model\]: there is no key 'depth'"),
        ("=3", "--set =3: write KEY=VALUE"),
    ],
)
def test_settings_that_are_wrong(text: str, message: str) -> None:
    with pytest.raises(SternaError, match=message):
        read_setting(text)


def test_what_defines_a_run() -> None:
    defining = TrainConfig().identity()
    assert {"lr", "batch", "seed", "bf16", "halve_at", "model.hidden_size"} <= defining.keys()
    assert not {"total_tokens", "micro_batch", "checkpointing", "parallel", "log_steps"} & defining.keys()
    json.dumps(defining)


def test_missing_files_and_configs_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = make_corpus(tmp_path)
    files = ["--train", str(corpus / "train.txt"), "--valid", str(corpus / "valid.txt"), "--out", str(tmp_path / "o")]
    (tmp_path / "a.toml").write_text("lrr = 1\n")
    cases = [
        (["train"], "--train is missing"),
        (["train", *files[:2]], "--valid is missing"),
        (["train", *files[:4]], "--out is missing"),
        (["train", *files, "--config", str(tmp_path / "a.toml")], "a.toml: there is no key 'lrr'; near it are lr"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
