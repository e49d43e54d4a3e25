"""The golden model against the float64 reference figures of a checkpoint in the published format."""

import os
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint

from sterna.errors import SternaError
from sterna.golden import calibrate as calibration
from sterna.golden.calibrate import calibrate
from sterna.golden.model import GoldenModel, Trace
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.spec.numerics import LOGIT_FRAC, STATE_FRAC

DATA = Path(os.environ.get("STERNA_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CHECKPOINT = DATA / "hgrnbit-4.5m"
RESERVOIR = {"seed": 5, "fixed": {"f": [1, 2], "gate": [2]}, "mixer_only": [1]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    source = write_checkpoint(path / "source", hidden=48, layers=2, inner=80, vocab=97, seed=3)
    import_checkpoint(source, path / "model")
    return Model.open(path / "model")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    if not CHECKPOINT.is_dir():
        pytest.skip(f"no checkpoint at {CHECKPOINT}; set STERNA_DATA")
    target = tmp_path_factory.mktemp("published") / "model"
    import_checkpoint(CHECKPOINT, target)
    return Model.open(target), np.load(CHECKPOINT / "reference.npz")


def test_published_checkpoint_logits_and_states(published):
    model, reference = published
    golden = GoldenModel(model, batch=3)
    logits = np.stack([golden.step(ids) for ids in reference["prompt_ids"].T], axis=1) * 2.0**-LOGIT_FRAC
    expected = reference["logits"].astype(np.float64)
    cosine = (logits * expected).sum(-1) / np.sqrt((logits**2).sum(-1) * (expected**2).sum(-1))
    assert cosine.mean() > 0.9995
    assert np.max(np.abs(golden.state[:, 0] * 2.0**-STATE_FRAC - reference["states"])) < 0.02
    equal = logits.argmax(-1) == expected.argmax(-1)
    top = np.sort(expected, axis=-1)
    assert equal.mean() >= 0.98
    assert equal[top[..., -1] - top[..., -2] > 0.3].all()


def test_published_checkpoint_likelihood(published):
    model, reference = published
    chunks = reference["nll20k_tokens"][: 39 * 512].reshape(39, 512)
    expected = reference["nll20k"][: 39 * 512].reshape(39, 512)[:, 1:].astype(np.float64)
    predicted, margin = (reference[name][: 39 * 512].reshape(39, 512) for name in ("argmax20k", "margin20k"))
    golden = GoldenModel(model, batch=39)
    nll, equal = [], []
    for position in range(512):
        trace = Trace()
        logits = golden.step(chunks[:, position], trace=trace) * 2.0**-LOGIT_FRAC
        assert trace.saturations == 0
        equal.append(logits.argmax(-1) == predicted[:, position])
        if position < 511:
            largest = logits.max(-1)
            normaliser = largest + np.log(np.exp(logits - largest[:, None]).sum(-1))
            nll.append(normaliser - logits[np.arange(39), chunks[:, position + 1]])
    assert abs(np.exp(np.mean(nll) - expected.mean()) - 1) < 1e-3
    agreement = np.stack(equal, axis=1)
    assert agreement.mean() >= 0.98
    assert agreement[margin > 0.3].all()


def test_batch_equals_single_sequences_and_reset_forgets(tiny):
    ids = np.random.default_rng(0).integers(0, 97, (3, 6))
    together = GoldenModel(tiny, batch=3)
    batched = np.stack([together.step(column) for column in ids.T], axis=1)
    single = GoldenModel(tiny)
    for sequence, expected in zip(ids, batched, strict=True):
        single.reset()
        assert np.array_equal(np.stack([single.step([token])[0] for token in sequence]), expected)


def test_state_is_carried(tiny):
    golden = GoldenModel(tiny)
    first = golden.step([5])
    assert not np.array_equal(golden.step([5]), first)


def test_trace_names_every_result_in_program_order(tiny):
    trace = Trace()
    logits = GoldenModel(tiny).step([1], trace=trace)
    names = [name for name, _ in trace.results]
    assert names[0] == "embedding" and names[-1] == "logits"
    assert names[1:9] == [
        f"layer 0 {part}" for part in ("f", "state", "output gate", "attention residual", "gate", "gated", "residual")
    ] + ["layer 1 f"]
    assert np.array_equal(trace.results[-1][1], logits)


def test_token_outside_the_vocabulary_is_refused(tiny):
    with pytest.raises(SternaError, match="outside the vocabulary"):
        GoldenModel(tiny).step([97])


def by_token(model, ids):
    """Largest magnitude of each result, one token after the other through the whole model."""
    golden = GoldenModel(model, batch=len(ids))
    largest = {}
    for column in ids.T:
        golden.step(column, trace=(trace := Trace()))
        for name, values in trace.results:
            largest[name] = max(largest.get(name, 0), int(np.abs(values).max()))
    return largest


@pytest.mark.parametrize("reservoir", [None, RESERVOIR])
def test_calibration_sees_by_layer_what_it_would_by_token(tmp_path, reservoir):
    source = write_checkpoint(tmp_path / "c", hidden=48, layers=4, inner=80, vocab=97, seed=4, reservoir=reservoir)
    import_checkpoint(source, tmp_path / "model", calibrate=False)
    model = Model.open(tmp_path / "model")
    ids = np.random.default_rng(2).integers(0, 97, (5, 19))
    expected = by_token(model, ids)
    expected.pop("logits")
    assert calibration._largest(model, ids) == expected


def test_calibration_shows_how_far_it_is(tiny):
    bars = []

    class Bar:
        def __init__(self, *, total, label, unit):
            self.total, self.label, self.count, self.closed = total, label, 0, False
            bars.append(self)

        def update(self, n):
            self.count += n

        def close(self):
            self.closed = True

    calibrate(tiny, ids=np.arange(4)[None], progress=Bar)
    (bar,) = bars
    assert (bar.label, bar.closed) == ("calibrating", True)
    assert 2 * 2 <= bar.count <= bar.total == 5 * 2


def test_tokens_of_a_layer_run_together(tiny):
    ids = np.random.default_rng(0).integers(0, 97, (3, 6))
    single, together = GoldenModel(tiny, batch=3), GoldenModel(tiny, batch=3)
    traces = [Trace() for _ in ids.T]
    for trace, column in zip(traces, ids.T, strict=True):
        single.step(column, trace=trace)
    whole = Trace()
    x = together.embed(ids.T.reshape(-1), whole)
    for layer in range(tiny.geometry.layers):
        x = together.layer(layer, x, whole)
    assert np.array_equal(together.state, single.state)
    for index, (name, values) in enumerate(whole.results):
        assert np.array_equal(values, np.concatenate([trace.results[index][1] for trace in traces])), name
        assert np.array_equal(whole.clamped[name], np.concatenate([trace.clamped[name] for trace in traces])), name


def test_calibration_leaves_headroom_and_nothing_saturates(tiny):
    ids = np.random.default_rng(1).integers(0, 97, (4, 16))
    points = calibrate(tiny, ids=ids)
    assert points["residual_frac"] == tiny.residual_frac
    golden = GoldenModel(tiny, batch=4)
    for column in ids.T:
        trace = Trace()
        golden.step(column, trace=trace)
        assert trace.saturations == 0
        for name, values in trace.results:
            if name.endswith(("residual", "gated", "output gate")):
                assert np.max(np.abs(values)) < 1 << 21
