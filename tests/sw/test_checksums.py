"""Damage of every kind, in the model's file, the memory image and the device's memory, is one sentence with a name."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_tensors, write_checkpoint

import sterna
from sterna.cli.main import main
from sterna.compiler.image import MemoryImage, compile_model
from sterna.emulator.board import SoftwareBoard
from sterna.emulator.pipes import PtyBoard
from sterna.emulator.transport import EmulatorTransport
from sterna.engines.accelerator import AcceleratorEngine
from sterna.engines.memory import CHUNK
from sterna.errors import DeviceError, SternaError
from sterna.importer import import_checkpoint
from sterna.model import layout
from sterna.model.manifest import WEIGHTS_FILE
from sterna.model.store import Model
from sterna.model.tensorfile import TensorFile
from sterna.quality.tracing import TracingGolden
from sterna.runtime.runners import load_float, open_runner
from sterna.spec.config import preset

SIZES = {"hidden": 45, "layers": 2, "inner": 77, "vocab": 97, "seed": 3}
EVEN = {"hidden": 64, "layers": 2, "inner": 96, "vocab": 96, "seed": 3}  # can be shared out among clusters
TINY = preset("sim-tiny")
RESERVOIR = {"seed": 6, "shared": True, "fixed": {"f": [0, 1], "i": [1], "gate": [0]}, "mixer_only": [1]}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checksums")
    import_checkpoint(write_checkpoint(folder / "source", **SIZES), folder / "model", calibrate=False)
    return folder / "model"


@pytest.fixture(scope="module")
def image(path: Path) -> MemoryImage:
    return compile_model(Model.open(path), TINY)


def generate(path: Path, device: str, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    """Exit code and last line on standard error of ``sterna generate``."""
    code = main(["generate", str(path), "--prompt", "3 5", "--ids", "--tokens", "2", "--device", device, *options])
    return code, capsys.readouterr().err.strip()


def flipped(data: bytes, position: int, bit: int = 3) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


# --- what the compiler notes -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("config", "sizes", "reservoir"),
    [("sim-tiny", SIZES, None), ("sim-tiny", SIZES, RESERVOIR), ("sim-tiny-c4", EVEN, None)],
)
def test_tensors_cover_every_byte_once_in_order(
    tmp_path: Path, config: str, sizes: dict[str, int], reservoir: dict[str, Any] | None
) -> None:
    source = write_checkpoint(tmp_path / "source", **sizes, reservoir=reservoir)
    import_checkpoint(source, tmp_path / "model", calibrate=False)
    model = Model.open(tmp_path / "model")
    image = compile_model(model, preset(config))
    memory = {address + n: byte for address, contents in image.segments for n, byte in enumerate(contents)}
    covered = [address for tensor in image.tensors for address in range(tensor.address, tensor.end)]
    assert covered == sorted(memory)
    for tensor in image.tensors:
        assert tensor.checksum == zlib.crc32(bytes(memory[n] for n in range(tensor.address, tensor.end)))
    stored = {name.removesuffix(".trits") for name in layout.stored_specs(model.geometry, embedding_dtype="U16")}
    names = [tensor.name for tensor in image.tensors]
    fixed = {plan.stored for plan in layout.projections(model.geometry) if plan.stream is not None}
    expected = {name for name in stored if not name.endswith((".beta", ".norm"))} | fixed
    places = ["", *(f" of cluster {n}" for n in range(1, preset(config).clusters))]
    assert sorted(names) == sorted(name + place for name in expected for place in places)


SOURCES = {
    "embedding": "model.embeddings.weight",
    "layers.1.lower_bound": "model.lower_bounds",
    **{f"layers.1.{name}": f"model.layers.1.attn.{name}_proj.weight" for name in "figo"},
    "layers.1.gate": "model.layers.1.mlp.gate_proj.weight",
    "layers.1.down": "model.layers.1.mlp.down_proj.weight",
    "head": "lm_head.weight",
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_changed_tensor_changes_its_checksum_and_no_other(tmp_path: Path, image: MemoryImage, name: str) -> None:
    values = make_tensors(**SIZES)[SOURCES[name]]
    values[-1] = values[-1, ::-1]
    source = write_checkpoint(tmp_path / "source", **SIZES, replace={SOURCES[name]: values})
    import_checkpoint(source, tmp_path / "model", calibrate=False)
    changed = compile_model(Model.open(tmp_path / "model"), TINY)
    pairs = zip(image.tensors, changed.tensors, strict=True)
    assert [before.name for before, after in pairs if before != after] == [name]


# --- the memory image on the host ------------------------------------------------------------------------------------
def spoilt(image: MemoryImage, name: str) -> MemoryImage:
    """The image with a flipped bit in the last byte of a tensor."""
    tensor = next(tensor for tensor in image.tensors if tensor.name == name)
    segments = [
        (address, flipped(data, tensor.end - 1 - address) if address <= tensor.address < address + len(data) else data)
        for address, data in image.segments
    ]
    return dataclasses.replace(image, segments=segments)


@pytest.mark.parametrize("name", ["layers.0.attn_norm", "layers.1.gate", "head", "embedding"])
def test_a_changed_image_is_not_loaded(path: Path, image: MemoryImage, name: str) -> None:
    transport = EmulatorTransport(TINY)
    with pytest.raises(SternaError, match=rf"^tensor {name} \(0x.* to 0x.*\) of the memory image .* compile"):
        AcceleratorEngine(transport, spoilt(image, name), Model.open(path).geometry)
    with pytest.raises(DeviceError, match="closed"):
        transport.read_memory(0, 1)


@pytest.mark.parametrize(("segment", "left", "name"), [(0, -1, "head"), (0, 1000, "layers.0.i"), (1, -1, "embedding")])
def test_a_truncated_image_is_not_loaded(path: Path, image: MemoryImage, segment: int, left: int, name: str) -> None:
    segments = list(image.segments)
    segments[segment] = (segments[segment][0], segments[segment][1][:left])
    short = dataclasses.replace(image, segments=segments)
    with pytest.raises(SternaError, match=rf"memory image is truncated: tensor {name} .* compile the model again"):
        AcceleratorEngine(EmulatorTransport(TINY), short, Model.open(path).geometry)


# --- the device's memory ---------------------------------------------------------------------------------------------
def test_a_flipped_bit_in_device_memory_is_named_and_mended(path: Path, image: MemoryImage) -> None:
    engine = AcceleratorEngine(EmulatorTransport(TINY), image, Model.open(path).geometry)
    read: list[int] = []
    engine.verify(progress=read.append)
    assert sum(read) == sum(len(contents) for _, contents in image.segments)
    for tensor in image.tensors:
        for address in (tensor.address, tensor.end - 1):
            byte = engine.transport.read_memory(address, 1)
            engine.transport.write_memory(address, flipped(byte, 0))
            with pytest.raises(DeviceError) as caught:
                engine.verify()
            places = f"(0x{tensor.address:X} to 0x{tensor.end:X})"
            assert str(caught.value).startswith(f"tensor {tensor.name} {places} in the device's memory")
            engine.transport.write_memory(address, byte)
    engine.transport.write_memory(0, b"\xff")
    engine.load()
    engine.verify()


def test_a_flipped_bit_in_the_memory_of_a_cluster_is_named(tmp_path: Path) -> None:
    config = preset("sim-tiny-c4")
    import_checkpoint(write_checkpoint(tmp_path / "source", **EVEN), tmp_path / "model", calibrate=False)
    model = Model.open(tmp_path / "model")
    image = compile_model(model, config)
    engine = AcceleratorEngine(EmulatorTransport(config), image, model.geometry)
    engine.verify()
    tensor = next(tensor for tensor in image.tensors if tensor.name == "layers.1.o of cluster 3")
    byte = engine.transport.read_memory(tensor.end - 1, 1)
    engine.transport.write_memory(tensor.end - 1, flipped(byte, 0))
    with pytest.raises(DeviceError, match=rf"^tensor layers\.1\.o of cluster 3 \(0x{tensor.address:X} to "):
        engine.verify()


def test_tensors_larger_than_a_piece_are_read_whole(path: Path, image: MemoryImage) -> None:
    class Strict(EmulatorTransport):
        def read_memory(self, address: int, size: int) -> bytes:
            assert size <= CHUNK
            return super().read_memory(address, size)

    big = bytes(range(256)) * ((CHUNK >> 8) * 2) + b"end"
    place = image.segments[1][0] + len(image.segments[1][1])
    entry = dataclasses.replace(image.tensors[0], name="big", address=place, size=len(big), checksum=zlib.crc32(big))
    grown = dataclasses.replace(image, segments=[*image.segments, (place, big)], tensors=[*image.tensors, entry])
    engine = AcceleratorEngine(Strict(TINY), grown, Model.open(path).geometry)
    engine.verify()
    engine.transport.write_memory(place + len(big) - 1, b"?")
    with pytest.raises(DeviceError, match="tensor big"):
        engine.verify()


@pytest.fixture
def faulty(image: MemoryImage, monkeypatch: pytest.MonkeyPatch) -> str:
    """Emulators keep a bit of the down projection wrong; returns the sentence about it."""
    tensor = next(tensor for tensor in image.tensors if tensor.name == "layers.1.down")
    honest = EmulatorTransport.write_memory

    def write(self: EmulatorTransport, address: int, data: bytes) -> None:
        place = tensor.address + 70 - address
        honest(self, address, flipped(bytes(data), place) if 0 <= place < len(data) else data)

    monkeypatch.setattr(EmulatorTransport, "write_memory", write)
    return f"tensor layers.1.down (0x{tensor.address:X} to 0x{tensor.end:X}) in the device's memory"


def test_the_memory_of_the_emulator_is_read_back_unasked(
    path: Path, faulty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = generate(path, "emulator", capsys, "--config", "sim-tiny")
    assert code == 3
    assert re.fullmatch(re.escape(f"sterna: {faulty} does not match its checksum: load the model again") + ".*", text)
    assert generate(path, "emulator", capsys, "--config", "sim-tiny", "--no-verify")[0] != 3


def test_the_memory_of_a_board_is_read_back_when_asked(
    path: Path, faulty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("serial", reason="needs pip install 'sterna[board]'")
    with PtyBoard(SoftwareBoard()) as plugged:
        device = f"serial:{plugged.port}?baud=3000000&memory_test=none"  # which would find this fault too
        code, text = generate(path, device, capsys, "--verify")
        assert code == 3
        assert text.startswith(f"sterna: {faulty} does not match its checksum")
        with sterna.load(path, device):  # slow links are not read back unasked
            pass


def test_a_whole_model_is_verified_and_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--verify"], ["--no-verify"]):
        assert generate(path, "emulator", capsys, "--config", "sim-tiny", *options)[0] == 0
    assert generate(path, "cpu", capsys, "--verify")[0] == 2  # has no memory of its own


# --- the model's file ------------------------------------------------------------------------------------------------
def end_of(file: Path, name: str) -> int:
    """The byte of a safetensors file behind a tensor."""
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    end: int = json.loads(data[8 : 8 + length])[name]["data_offsets"][1]
    return 8 + length + end


TENSORS = ["embedding", "layers.0.f.trits", "layers.1.down.norm", "layers.1.lower_bound", "head.beta", "head.trits"]


@pytest.mark.parametrize("device", ["golden", "cpu", "emulator"])
@pytest.mark.parametrize("name", TENSORS)
def test_a_flipped_bit_in_the_file_is_named_on_every_device(
    tmp_path: Path, path: Path, name: str, device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(path, tmp_path / "model")
    file = model / WEIGHTS_FILE
    file.write_bytes(flipped(file.read_bytes(), end_of(file, name) - 1, bit=0))
    code, text = generate(model, device, capsys)
    assert code == 2
    assert text == (
        f"sterna: tensor {name} in model.safetensors does not match its checksum; import the checkpoint again"
    )


@pytest.mark.parametrize("runner", [partial(open_runner, device="golden", options={}), load_float, TracingGolden])
def test_figures_are_not_made_from_a_damaged_file(tmp_path: Path, path: Path, runner: Callable[[Path], object]) -> None:
    if runner is load_float:
        pytest.importorskip("torch")
    model = shutil.copytree(path, tmp_path / "model")
    file = model / WEIGHTS_FILE
    file.write_bytes(flipped(file.read_bytes(), end_of(file, "head.trits") - 1, bit=0))
    with pytest.raises(SternaError, match=r"tensor head\.trits in model\.safetensors does not match"):
        runner(model)


@pytest.mark.parametrize("left", [0, 7, 100, 0.3, 0.999, -1])
def test_a_truncated_file_is_one_sentence(
    tmp_path: Path, path: Path, left: float, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(path, tmp_path / "model")
    data = (model / WEIGHTS_FILE).read_bytes()
    (model / WEIGHTS_FILE).write_bytes(data[: int(left * len(data)) if 0 < left < 1 else int(left)])
    code, text = generate(model, "golden", capsys)
    assert (code, text.count("\n")) == (2, 0)
    assert re.match(r"sterna: model.safetensors (is truncated|cannot be read)", text)
    if 0 < left < 1 or left == -1:
        assert re.search(r"tensor \S+ ends at byte \d+, the file at \d+", text)


@pytest.mark.parametrize("size", [1, 7, 1 << 22])
def test_pieces_of_a_tensor_are_its_bytes(path: Path, size: int) -> None:
    file = TensorFile(path / WEIGHTS_FILE)
    for name in TENSORS:
        assert b"".join(file.pieces(name, size)) == file.raw(name).tobytes()


def test_a_file_that_shrinks_while_it_is_open_is_one_sentence(tmp_path: Path, path: Path) -> None:
    """Mapped, its lost pages would end the process."""
    model_path = shutil.copytree(path, tmp_path / "model")
    file = TensorFile(model_path / WEIGHTS_FILE)
    data = (model_path / WEIGHTS_FILE).read_bytes()
    (model_path / WEIGHTS_FILE).write_bytes(data[: len(data) // 2])
    lost = [name for name, spec in file.specs.items() if sum(map(len, file.pieces(name))) < spec.nbytes]
    assert 0 < len(lost) < len(file.specs)
