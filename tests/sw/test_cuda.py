"""The CUDA engine gives the integers of the golden model: on a processor in place of the GPU, and on a GPU."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from cuda_emulation import COMPILER, EmulatedDevice

import sterna
from sterna.engines.cuda.device import CudaDevice
from sterna.engines.cuda.engine import CudaEngine
from sterna.engines.cuda.source import Shape, module_source
from sterna.engines.cuda.structures import PROJECTION
from sterna.engines.engine import BatchedEngine, Resumable
from sterna.engines.golden import GoldenEngine
from sterna.errors import SternaError
from sterna.golden import rows
from sterna.golden.model import GoldenModel, Trace
from sterna.importer import import_checkpoint
from sterna.model.geometry import Geometry
from sterna.model.store import Model
from sterna.runtime.session import Session
from sterna.spec import numerics
from sterna.spec.numerics import ScaleConstants

SMALL = {"hidden": 33, "layers": 2, "inner": 47, "vocab": 61}
RESERVOIR = {"seed": 4, "shared": False, "fixed": {"f": [0, 1], "o": [1], "down": [0]}, "mixer_only": [1]}
NEEDS_COMPILER = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")

MakeEngine = Callable[..., CudaEngine]


def gpu_missing() -> str:
    try:
        CudaDevice().close()
    except SternaError as error:
        return str(error)
    return ""


GPU_MISSING = gpu_missing()


@pytest.fixture(scope="session")
def machine_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machine-code")


@pytest.fixture(
    params=[
        pytest.param("emulated", marks=NEEDS_COMPILER),
        pytest.param("gpu", marks=pytest.mark.skipif(bool(GPU_MISSING), reason=GPU_MISSING)),
    ]
)
def make_engine(request: pytest.FixtureRequest, machine_code: Path) -> Iterator[MakeEngine]:
    """Makes engines; on a processor with few threads and a chunk that prompts exceed."""
    seed = int(np.random.default_rng().integers(1 << 31))
    print(f"order of threads: seed {seed}")
    made = []

    def make(model: Model, **options: Any) -> CudaEngine:
        if request.param == "emulated":
            options = {"device": EmulatedDevice(machine_code, seed=seed), "threads": 64, "chunk": 6, **options}
        made.append(CudaEngine(model, **options))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def make_model(path: Path, *, seed: int = 1, reservoir: dict[str, Any] | None = None, **sizes: int) -> Model:
    write_checkpoint(path / "checkpoint", seed=seed, reservoir=reservoir, **sizes)
    import_checkpoint(path / "checkpoint", path / "model")
    return Model.open(path / "model")


def assert_equal(engine: CudaEngine, model: Model, tokens: list[int]) -> int:
    """Run both engines; returns how many results were clamped."""
    golden, clamped = GoldenEngine(model), 0
    for position, token in enumerate(tokens):
        ours, expected = engine.step(token, logits=True), golden.step(token, logits=True)
        np.testing.assert_array_equal(ours.logits, expected.logits, err_msg=f"position {position}")
        assert ours.logits.dtype == expected.logits.dtype == np.int32
        assert (ours.sampled, ours.counters) == (expected.sampled, expected.counters)
        clamped += ours.counters["saturations"]
    np.testing.assert_array_equal(engine.state, golden.state)
    return clamped


def assert_prefill_equal(engine: CudaEngine, model: Model, tokens: list[int]) -> int:
    """Read the tokens at once, with golden one by one, and go on; returns how many results were clamped."""
    golden, clamped = GoldenEngine(model), 0
    ours = engine.prefill(tokens, logits=True)
    for position, token in enumerate(tokens):
        trace = Trace()
        golden._golden.step([token], trace=trace)
        logits, limits = dict(trace.results)["logits"], (numerics.VALUE_MIN, numerics.VALUE_MAX)
        last = position + 1 == len(tokens)
        clamped += trace.saturations - (0 if last else int(np.isin(logits, limits).sum()))
    np.testing.assert_array_equal(engine.state, golden.state)
    np.testing.assert_array_equal(ours.logits, logits[0])
    assert ours.sampled == int(logits[0].argmax())
    assert ours.counters == {"saturations": clamped}
    assert engine.step(3).sampled == golden.step(3).sampled
    return clamped


@pytest.mark.parametrize(
    ("hidden", "layers", "inner", "vocab"),
    [
        (33, 2, 47, 61),
        (4, 1, 11, 5),
        (131, 1, 701, 283),  # more than a slice of 512 columns, and more rows than threads
    ],
)
def test_equals_golden(
    tmp_path: Path, make_engine: MakeEngine, hidden: int, layers: int, inner: int, vocab: int
) -> None:
    model = make_model(tmp_path, hidden=hidden, layers=layers, inner=inner, vocab=vocab, seed=hidden)
    engine = make_engine(model)
    assert_equal(engine, model, [0, vocab - 1, 2, 2])
    engine.reset()
    tokens = np.random.default_rng(hidden).integers(0, vocab, 8).tolist()
    assert_prefill_equal(engine, model, tokens if hidden < 100 else tokens[:5])  # on a processor one chunk takes long


def test_layers_without_glu(tmp_path: Path, make_engine: MakeEngine) -> None:
    model = make_model(tmp_path, reservoir=RESERVOIR, **SMALL)
    engine = make_engine(model)
    assert_equal(engine, model, [5, 60, 1])
    engine.reset()
    assert_prefill_equal(engine, model, [7, 7, 0])


@pytest.mark.parametrize("change", ["product", "glu", "residual", "state", "head"])
def test_clamps_like_golden(tmp_path: Path, make_engine: MakeEngine, change: str) -> None:
    model = make_model(tmp_path, **SMALL)
    layers = [
        dataclasses.replace(
            layer,
            product_frac=26 if change == "product" else layer.product_frac,
            glu=dataclasses.replace(layer.glu, glu_frac=24) if change == "glu" else layer.glu,
            i=dataclasses.replace(layer.i, beta=700 * layer.i.beta) if change == "state" else layer.i,
        )
        for layer in model.layers
    ]
    head = dataclasses.replace(model.head, beta=900 * model.head.beta) if change == "head" else model.head
    frac = min(model.embedding.frac + numerics.EMBED_MANTISSA_BITS, 23) if change == "residual" else model.residual_frac
    changed = dataclasses.replace(model, layers=tuple(layers), residual_frac=frac, head=head)
    engine = make_engine(changed)
    assert assert_equal(engine, changed, [1, 2, 3]) > 0
    engine.reset()
    assert assert_prefill_equal(engine, changed, [1, 60, 2, 3, 9, 11, 2]) > 0


def test_every_phase_equals_golden(tmp_path: Path, make_engine: MakeEngine) -> None:
    model = make_model(tmp_path, **SMALL)
    engine, golden = make_engine(model), GoldenModel(model)
    engine.step(4), golden.step([4])
    trace = Trace()
    golden.step([9], trace=trace)
    expected = dict(trace.results)
    found = engine.trace(9)
    for name, values in found:
        np.testing.assert_array_equal(values, expected[name][0], err_msg=name)
    kept = ("state", "output gate", "residual", "gated", "logits")
    assert [name for name, _ in found] == [name for name in expected if name.endswith(kept)]
    np.testing.assert_array_equal(engine.state, golden.state[:, 0])


def test_the_lowest_index_wins_ties(tmp_path: Path, make_engine: MakeEngine) -> None:
    model = make_model(tmp_path, **SMALL)
    largest = []
    for code in (0, 242):  # rows of all -1, then of all +1: the logits are equal, once below zero and once above
        packed = np.full_like(model.head.packed, code)
        changed = dataclasses.replace(model, head=dataclasses.replace(model.head, source=lambda packed=packed: packed))
        step = make_engine(changed).step(7, logits=True)
        assert step.sampled == 0 and step.logits.min() == step.logits.max()
        largest.append(int(step.logits[0]))
    assert largest[0] == -largest[1] != 0


def test_many_blocks_and_one(tmp_path: Path, make_engine: MakeEngine) -> None:
    model = make_model(tmp_path, **SMALL)
    for blocks in (1, 20):
        engine = make_engine(model, blocks=blocks)
        assert_equal(engine, model, [3, 4])
        assert not engine._model.read("arrivals", 1).any()  # or the barriers of the next launch would not wait


def test_state_is_read_set_and_reset(tmp_path: Path, make_engine: MakeEngine) -> None:
    engine = make_engine(make_model(tmp_path, **SMALL))
    assert isinstance(engine, Resumable) and isinstance(engine, BatchedEngine)
    first = engine.step(5, logits=True).logits
    state = engine.state
    second = engine.step(5, logits=True).logits
    assert not np.array_equal(first, second)
    engine.state = state
    np.testing.assert_array_equal(engine.step(5, logits=True).logits, second)
    engine.reset()
    np.testing.assert_array_equal(engine.step(5, logits=True).logits, first)
    assert engine.step(5).logits is None


def test_the_next_token_runs_ahead_and_leaves_no_trace_where_another_comes(
    tmp_path: Path, make_engine: MakeEngine
) -> None:
    model = make_model(tmp_path, **SMALL)
    engine, golden = make_engine(model), GoldenEngine(model)

    def both(token: int, *, logits: bool = False) -> int:
        ours, expected = engine.step(token, logits=logits), golden.step(token, logits=logits)
        assert (ours.sampled, ours.counters) == (expected.sampled, expected.counters)
        if logits:
            np.testing.assert_array_equal(ours.logits, expected.logits)
        np.testing.assert_array_equal(engine.state, golden.state)
        return ours.sampled

    def follow(token: int, count: int) -> int:
        for _ in range(count):
            token = both(token)
        return token

    sampled = follow(3, 4)
    sampled = both(sampled, logits=True)  # has run ahead already; nothing runs ahead of it
    sampled = follow(sampled, 2)
    sampled = follow((sampled + 1) % 61, 3)  # not the token that runs
    state = engine.state
    follow(sampled, 2)
    engine.state = golden.state = state
    sampled = follow(sampled, 3)
    golden.step(1)
    read = golden.step(sampled).sampled
    assert engine.prefill([1, sampled]).sampled == read
    sampled = follow(read, 2)
    engine.reset(), golden.reset()
    assert engine.trace(sampled)[-1][0] == "logits"
    golden.step(sampled)
    np.testing.assert_array_equal(engine.state, golden.state)
    follow(5, 2)


def test_sessions_read_prompts_at_once(tmp_path: Path, make_engine: MakeEngine) -> None:
    model = make_model(tmp_path, **SMALL)
    counts: list[int] = []
    with sterna.load(model.path) as session:
        expected = session.generate([5, 6, 7], tokens=4, stop_at_eos=False).run()
    engine = make_engine(model)
    with Session(engine, None, bos_id=None, eos_id=None, path=model.path) as session:
        generation = session.generate([5, 6, 7], tokens=4, stop_at_eos=False, progress=counts.append).run()
    assert (generation.ids, generation.steps, counts) == (expected.ids, expected.steps, [3, 1, 1, 1])


def test_memory_is_that_of_packed_trits(tmp_path: Path, make_engine: MakeEngine) -> None:
    sizes = {"hidden": 320, "layers": 1, "inner": 640, "vocab": 512}
    engine = make_engine(make_model(tmp_path, **sizes), chunk=1)
    trits = Geometry(**sizes, rms_eps=1e-6).ternary_weights
    embedding, rest = 2 * sizes["vocab"] * sizes["hidden"], 1.3 * 2**20  # one block of trits on the way, vectors
    assert engine.memory_bytes < trits / 4 + embedding + rest


def test_errors(tmp_path: Path, make_engine: MakeEngine) -> None:
    model = make_model(tmp_path, **SMALL)
    engine = make_engine(model)
    for token in (-1, 61):
        with pytest.raises(SternaError, match=f"token id {token} is outside the vocabulary of 61"):
            engine.step(token)
        with pytest.raises(SternaError, match=f"token id {token} is outside"):
            engine.prefill([1, token])
    with pytest.raises(SternaError, match="no tokens to read"):
        engine.prefill([])
    packed = np.array(model.head.packed)
    packed[-1, -1] = 243
    broken = dataclasses.replace(model, head=dataclasses.replace(model.head, source=lambda: packed))
    with pytest.raises(SternaError, match=r"no trit code"):
        make_engine(broken)


@pytest.mark.skipif(not GPU_MISSING, reason="there is a GPU")
def test_a_missing_gpu_is_said(tmp_path: Path) -> None:
    model = make_model(tmp_path, **SMALL)
    with pytest.raises(SternaError, match=r"device 'cuda' needs (CuPy|an NVIDIA GPU)"):
        sterna.load(model.path, device="cuda")


# --- scalar functions, on a processor --------------------------------------------------------------------------------

WRAPPERS = """
extern "C" void test_scalars(unsigned long long largest, unsigned long long s1, unsigned long long s2,
                             const Projection* projection, int* result) {
    Scalars scalars;
    normaliser_scalars(largest, scalars);
    scale_scalars(largest, s1, s2, *projection, scalars);
    result[0] = scalars.exponent, result[1] = scalars.reciprocal;
    result[2] = scalars.mantissa, result[3] = scalars.shift;
}
extern "C" int test_quantise(int w, int c, int exponent, int reciprocal) {
    return quantise_element(w, c, {exponent, reciprocal, 0, 0});
}
extern "C" int test_sigma(int x) { return sigma(SIGMA_TABLE, x); }
extern "C" int test_forget(int y, int bound) { return forget(SIGMA_TABLE, y, bound); }
static long long marked(Row row) { return row.value * 2ll + row.clamped; }
extern "C" long long test_recur(int y, int f, int h) { return marked(recur(silu(SIGMA_TABLE, y), f, h)); }
extern "C" long long test_outgate(int y, int h, int shift) { return marked(outgate(SIGMA_TABLE, y, h, shift)); }
extern "C" long long test_scale(int sum, int mantissa, int shift) { return marked(scale_row(sum, mantissa, shift)); }
"""


@pytest.fixture(scope="module")
def functions(machine_code: Path) -> ctypes.CDLL:
    device = EmulatedDevice(machine_code)
    shape = Shape(geometry=Geometry(**SMALL, rms_eps=1e-6), blocks=1, threads=32, chunk=1)
    library = device.compile(module_source(shape) + WRAPPERS)
    for name in ("recur", "outgate", "scale"):
        library[f"test_{name}"].restype = ctypes.c_longlong
    return library


@NEEDS_COMPILER
def test_scalars_equal_the_specification(functions: ctypes.CDLL) -> None:
    rng, compared = np.random.default_rng(5), 0
    for case in range(4000):
        largest = int(rng.integers(1, 1 << int(rng.integers(1, 40)))) if case % 50 else 1 << case % 39
        s1, s2 = (int(rng.integers(0, 1 << int(rng.integers(1, 63)))) for _ in range(2))
        constants = ScaleConstants(
            eps_mantissa=int(rng.choice([0, (1 << 16) - 1, rng.integers(1 << 15, 1 << 16)])),
            eps_shift=int(rng.choice([0, 63, 64, 127, rng.integers(0, 128)])),
            eps_const=int(rng.integers(0, 1 << int(rng.integers(1, 41)))),
            mantissa=int(rng.integers(1 << 23, 1 << 24)),
            exponent=int(rng.integers(-70, 20)),
        )
        expected = numerics.quantiser_scalars(largest, s1, s2, constants)
        projection = np.zeros(1, PROJECTION.dtype)
        for name, value in dataclasses.asdict(constants).items():
            projection[name] = value
        result = np.zeros(4, np.int32)
        functions.test_scalars(
            *(ctypes.c_ulonglong(n) for n in (largest, s1, s2)),
            ctypes.c_void_p(projection.ctypes.data),
            ctypes.c_void_p(result.ctypes.data),
        )
        assert tuple(result.tolist()) == dataclasses.astuple(expected), (largest, s1, s2, constants)
        compared += 0 < expected.scale_shift < numerics.MAX_SHIFT
        c = int(rng.integers(-(1 << 15), 1 << 15)) or 1
        limit = min(largest // abs(c), numerics.VALUE_MAX)
        for w in (limit, -limit, int(rng.integers(-limit, limit + 1))):
            q = numerics.quantise(np.array([w * c]), expected.exponent, expected.reciprocal)[0]
            assert functions.test_quantise(w, c, expected.exponent, expected.reciprocal) == q, (w, c, expected)
    assert compared > 500  # not only clamped shifts


@NEEDS_COMPILER
def test_row_operations_equal_the_specification(functions: ctypes.CDLL) -> None:
    rng = np.random.default_rng(6)
    edges = [numerics.VALUE_MIN, numerics.VALUE_MAX, 0, 1, -1, (1 << 18) - 1, 1 << 18, -(1 << 18), 255, 256, -256]
    values = np.array([*edges, *rng.integers(numerics.VALUE_MIN, numerics.VALUE_MAX + 1, 3000)])
    values[500:] >>= rng.integers(0, 16, len(values) - 500)
    assert [functions.test_sigma(int(x)) for x in values] == numerics.sigma(values).tolist()

    def marked(result: tuple[Any, Any]) -> list[int]:
        return (result[0] * 2 + result[1]).tolist()

    states, gates = rng.permutation(values), rng.integers(0, numerics.GATE_ONE + 1, len(values))
    bounds = rng.integers(0, numerics.GATE_ONE, len(values))
    shifts, mantissas = rng.integers(0, 48, len(values)), rng.integers(0, 1 << 18, len(values))
    cases = list(zip(values.tolist(), states.tolist(), gates.tolist(), bounds.tolist(), strict=True))
    assert [functions.test_forget(y, bound) for y, _, _, bound in cases] == rows.forget(values, bounds).tolist()
    assert [functions.test_recur(y, f, h) for y, h, f, _ in cases] == marked(rows.recur(values, gates, states))
    for shift in (4, 14, 30):
        found = [functions.test_outgate(y, h, shift) for y, h, _, _ in cases]
        assert found == marked(rows.outgate(values, states, shift))
    found = [functions.test_scale(*map(int, case)) for case in zip(values, mantissas, shifts, strict=True)]
    assert found == marked(numerics.scale_rows(values, mantissas, shifts))
