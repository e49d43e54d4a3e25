"""The engine for NVIDIA GPUs: the integers of the golden model, one launch a token, packed weights in its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sterna.engines.cuda.device import CudaDevice, Device
from sterna.engines.cuda.device_model import DeviceModel
from sterna.engines.cuda.source import (
    GEMM_THREADS,
    QUAD,
    RECUR_THREADS,
    WARP_QUADS,
    WARP_TOKENS,
    Shape,
    module_source,
)
from sterna.engines.engine import Step
from sterna.errors import SternaError
from sterna.model.geometry import Geometry
from sterna.model.integer import IntegerModel
from sterna.model.store import Model
from sterna.spec.numerics import IntArray

CHUNK = 512  # tokens of a prompt that are read at once; their working memory is 39 KiB a token at 1.3B
_THREADS = 512
_ALL_PHASES = 1 << 30
_SAMPLED = -1  # the token that the launch before has sampled


class CudaEngine:
    """Runs a model on a GPU, where its weights stay packed, four trits a byte.

    The kernels are compiled for the sizes of the model. CuPy keeps the machine code, so only the first engine of a
    geometry on a machine takes some seconds for that.

    Args:
        model: A stored model, or its integer constants.
        gpu: Index of the GPU.
        device: Takes the place of the GPU with that index, and is closed with the engine.
        blocks: Blocks that decode a token; by default one per multiprocessor.
        threads: Threads of such a block.
        chunk: Tokens of a prompt that are read at once at most.

    Raises:
        SternaError: CuPy, the GPU or enough of its memory is missing, or a byte of the weights is no trit code.
    """

    def __init__(
        self,
        model: Model | IntegerModel,
        *,
        gpu: int = 0,
        device: Device | None = None,
        blocks: int | None = None,
        threads: int = _THREADS,
        chunk: int = CHUNK,
    ) -> None:
        self._device = CudaDevice(gpu) if device is None else device
        try:
            integers = model if isinstance(model, IntegerModel) else IntegerModel.from_model(model)
            self._geometry = integers.geometry
            self._shape = Shape(
                geometry=integers.geometry, blocks=blocks or self._device.processors, threads=threads, chunk=chunk
            )
            self._device.compile(module_source(self._shape))
            self._model = DeviceModel(self._device, integers, self._shape)
            self._latest: int | None = None  # what was sampled last
            self._queued: object | None = None  # the launch that reads it already
            self._glu = [layer.glu is not None for layer in integers.layers]
        except BaseException:
            self._device.close()
            raise

    @property
    def geometry(self) -> Geometry:
        """Sizes of the model."""
        return self._geometry

    @property
    def device_name(self) -> str:
        """What the GPU is called."""
        return self._device.name

    @property
    def memory_bytes(self) -> int:
        """Device memory that the engine holds, all of it from the beginning."""
        return self._device.memory_bytes

    @property
    def state(self) -> IntArray:
        """Recurrent state, int64 [layers, hidden], 16 fractional bits; reading and setting copy."""
        return self._model.state

    @state.setter
    def state(self, state: IntArray) -> None:
        self._queued = None
        self._model.state = state

    def reset(self) -> None:
        """Forget the sequence."""
        self.state = np.zeros((self._geometry.layers, self._geometry.hidden), np.int64)

    def step(self, token: int, *, logits: bool = False) -> Step:
        """Run one token; see :class:`sterna.engines.engine.Engine`.

        Where the tokens are those that were sampled, the next one is on its way to the GPU before this returns; should
        another one come, what it did to the state is dropped.

        Raises:
            SternaError: the token is outside the vocabulary, or the GPU failed.
        """
        self._check([token])
        follows, queued = token == self._latest, self._queued
        mark = queued if follows and queued else self._decode(token=token)
        self._model.half ^= 1
        self._queued = self._decode(token=_SAMPLED) if follows and not logits else None
        return self._step(mark, self._model.half, logits)

    def prefill(
        self, tokens: Sequence[int], *, logits: bool = False, progress: Callable[[int], object] | None = None
    ) -> Step:
        """Run several tokens at once; see :class:`sterna.engines.engine.BatchedEngine`.

        Raises:
            SternaError: there are no tokens, one is outside the vocabulary, or the GPU failed.
        """
        if not tokens:
            raise SternaError("there are no tokens to read: give at least one")
        self._check(tokens)
        self._queued = None
        for start in range(0, len(tokens), self._shape.chunk):
            chunk = tokens[start : start + self._shape.chunk]
            self._read(chunk)
            if progress:
                progress(len(chunk))
        mark = self._decode(row=len(chunk) - 1, first_layer=self._geometry.layers)
        return self._step(mark, 1 - self._model.half, logits)

    def trace(self, token: int) -> list[tuple[str, IntArray]]:
        """Run a token once for each of its phases, to see what the phases leave; advances the state by one token.

        Returns:
            (name, int64 [rows]) in program order: what of :class:`sterna.golden.model.Trace` reaches memory.
        """
        self._check([token])
        before, sizes, results, phases = self.state, self._geometry, [], 0
        for layer, has_glu in enumerate(self._glu):
            mixer = [("output gate", "w", sizes.hidden), ("attention residual", "x", sizes.hidden)]
            glu = [("gated", "a", sizes.inner), ("residual", "x", sizes.hidden)]
            for name, field, rows in [*mixer, *(glu if has_glu else [])]:
                phases += 1
                self.state = before
                self._decode(token=token, phases=phases)
                self._model.half ^= 1
                if name == "output gate":
                    results.append((f"layer {layer} state", self.state[layer]))
                results.append((f"layer {layer} {name}", self._model.read(field, rows).astype(np.int64)))
        self.state = before
        logits = self.step(token, logits=True).logits
        assert logits is not None  # was asked for
        return [*results, ("logits", logits.astype(np.int64))]

    def close(self) -> None:
        """Free the memory of the GPU."""
        self._device.close()

    def _check(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if not 0 <= token < self._geometry.vocab:
                raise SternaError(f"token id {token} is outside the vocabulary of {self._geometry.vocab}")

    def _decode(self, *, token: int = 0, row: int = 0, first_layer: int = 0, phases: int = _ALL_PHASES) -> object:
        """Run a token, or from ``first_layer`` = layers the head of the token in this row of the chunk.

        With ``phases`` it ends early, after so many of the phases that decode.cuh describes. It reads the half of the
        state that holds and writes the other. Returns what to wait for.
        """
        shape = self._shape
        arguments = (self._model.address, token, row, first_layer, phases, self._model.half)
        shared = shape.decode_shared_bytes
        self._device.launch("decode", (shape.blocks,), shape.threads, *arguments, shared=shared, cooperative=True)
        return self._device.mark()

    def _step(self, mark: object, half: int, logits: bool) -> Step:
        """The result of the launch that wrote this half."""
        self._device.wait(mark)
        sampled, clamped = (int(value) for value in self._model.results[half])
        self._latest = sampled
        values = self._model.read("logits", self._geometry.vocab) if logits else None
        return Step(sampled, values, {"saturations": clamped})

    def _read(self, tokens: Sequence[int]) -> None:
        """Run a chunk of tokens through all layers, all of them through one kernel after the other."""
        sizes, count = self._geometry, len(tokens)
        self._device.write(int(self._model.fields["tokens"]), np.asarray(tokens, np.int32))
        self._per_token("prefill_embed", count)
        for layer, has_glu in enumerate(self._glu):
            self._per_token("prefill_quantise_gates", count, layer)
            self._gemm("prefill_gates", -(-sizes.hidden // QUAD), 3, layer, count)
            recur_blocks = -(-sizes.hidden // RECUR_THREADS)
            arguments = (self._model.address, layer, count, self._model.half)
            self._device.launch("prefill_recur", (recur_blocks,), RECUR_THREADS, *arguments)
            self._per_token("prefill_quantise_out", count, layer)
            self._gemm("prefill_out", -(-sizes.hidden // QUAD), 1, layer, count)
            if has_glu:
                self._per_token("prefill_quantise_glu", count, layer)
                self._gemm("prefill_glu", -(-sizes.inner // 2), 1, layer, count)
                self._per_token("prefill_quantise_down", count, layer)
                self._gemm("prefill_down", -(-sizes.hidden // QUAD), 1, layer, count)

    def _per_token(self, kernel: str, count: int, *arguments: int) -> None:
        shared = self._shape.quantise_shared_bytes
        self._device.launch(kernel, (count,), self._shape.threads, self._model.address, *arguments, shared=shared)

    def _gemm(self, kernel: str, quads: int, matrices: int, layer: int, count: int) -> None:
        grid = (matrices * -(-quads // (2 * WARP_QUADS)), -(-count // (2 * WARP_TOKENS)))
        self._device.launch(kernel, grid, GEMM_THREADS, self._model.address, layer, count)
