"""Runs the descriptors of a program on NumPy memories: the instruction set of docs/program.md, executable."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sterna.emulator.exchange import Activations, Offer, Run, Scalars, run_in_step
from sterna.golden import rows
from sterna.spec import generator, isa, numerics, packing
from sterna.spec.config import HardwareConfig
from sterna.spec.isa import Opcode, RowOp
from sterna.spec.numerics import IntArray, QuantiserScalars, ScaleConstants
from sterna.spec.registers import ErrorCause

_FEEDS_S2 = {RowOp.EMBED, RowOp.OUTGATE, RowOp.RESIDUAL}


class ProgramError(Exception):
    """The program made the accelerator stop; ``cause`` is what ERROR_CAUSE would show."""

    def __init__(self, cause: ErrorCause) -> None:
        super().__init__(cause.name)
        self.cause = cause


@dataclass
class TokenResult:
    """What one token left behind: logits int64 [V], every row result in order, rows clamped."""

    logits: IntArray
    trace: list[IntArray]
    saturations: int


class _Stream:
    """The words of a segment list, taken in order."""

    def __init__(self, data: npt.NDArray[np.uint8], word_bytes: int) -> None:
        self._words = data.reshape(-1, word_bytes)
        self._next = 0

    @property
    def ended(self) -> bool:
        """No word is left."""
        return self._next == len(self._words)

    def take(self, count: int) -> npt.NDArray[np.uint8]:
        if self._next + count > len(self._words):
            raise ProgramError(ErrorCause.STREAM_END)
        self._next += count
        return self._words[self._next - count : self._next]


class Interpreter:
    """Vector, state, parameter and activation memory of one slot or cluster of a build, and the operations on them."""

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        self.vector = np.zeros(config.vector_depth, np.int64)
        self.state = np.zeros(config.state_depth, np.int64)
        self.params = np.zeros(config.param_depth, np.int64)  # as unsigned 16 bits
        self.activations = np.zeros(config.activation_depth, np.int64)
        self.s2 = 0  # of the rows so far
        self.agreed = Scalars()  # of the last SUMSQ
        self.scale = QuantiserScalars(0, 0, 0, 0)

    def run(self, data: npt.NDArray[np.uint8], *, fresh: bool, prefix: bool = False) -> TokenResult:
        """Run one token of a build without clusters; see :meth:`token`."""
        (result,) = run_in_step([self.token(data, fresh=fresh, prefix=prefix)], vector_width=self.config.vector_width)
        return result

    def token(self, data: npt.NDArray[np.uint8], *, fresh: bool, prefix: bool = False) -> Run[TokenResult]:
        """Run one token in step with the other clusters; see :func:`~sterna.emulator.exchange.run_in_step`.

        Args:
            data: uint8, the bytes of the stream: embedding row, then program.
            fresh: The recurrent state counts as zero.
            prefix: The program is the beginning of one: its last descriptor ends the token as END would.

        Raises:
            ProgramError: an illegal descriptor, an invalid trit code, or END anywhere but at the end.
        """
        stream = _Stream(data, self.config.word_bytes)
        result = TokenResult(np.zeros(0, np.int64), [], 0)
        while not (prefix and stream.ended):
            d = isa.decode(stream.take(self.config.descriptor_words).tobytes())
            if not isa.is_legal(d, generator=self.config.generator):
                raise ProgramError(ErrorCause.BAD_OPCODE)
            match d["opcode"]:
                case Opcode.LOAD:
                    values = stream.take(d["count"]).reshape(-1).view("<u2").astype(np.int64)
                    self.params[d["target"] : d["target"] + len(values)] = values
                case Opcode.EMBED:
                    words = stream.take(-(-d["count"] // self.config.params_per_word))
                    elements = words.reshape(-1).view("<i2")[: d["count"]].astype(np.int64)
                    self._rows(d, elements, 1 << numerics.EMBED_MANTISSA_BITS, d["shift"], fresh, result)
                case Opcode.SUMSQ:
                    w = self.vector[d["source"] : d["source"] + d["count"]]
                    if not d["ones"]:
                        w = numerics.round_shift(w * self._signed_params(d), numerics.PARAM_WIDTH - 1)
                    self.agreed = yield from _scalars(Scalars(s1=int(rows.squares(w)), s2=self.s2))
                case Opcode.QUANT:
                    yield from self._quant(d)
                case Opcode.MATMUL:
                    sums = self._matmul(d, stream)
                    self._rows(d, sums, self.scale.scale_mantissa, self.scale.scale_shift, fresh, result)
                case Opcode.END:
                    if not stream.ended:
                        raise ProgramError(ErrorCause.STREAM_END)
                    return result
        return result

    def _signed_params(self, d: dict[str, int]) -> IntArray:
        return self.params[d["param"] : d["param"] + d["count"]].astype(np.uint16).view(np.int16).astype(np.int64)

    def _quant(self, d: dict[str, int]) -> Run[None]:
        product = self.vector[d["source"] : d["source"] + d["count"]] * self._signed_params(d)
        constants = ScaleConstants(
            eps_mantissa=d["eps_mantissa"],
            eps_shift=d["eps_shift"],
            eps_const=d["eps_const"],
            mantissa=d["scale_mantissa"],
            exponent=d["scale_exponent"],
        )
        top = yield from _scalars(Scalars(largest=int(np.max(np.abs(product)))))
        self.scale = numerics.quantiser_scalars(top.largest, self.agreed.s1, self.agreed.s2, constants)
        all_of_them = yield Activations(numerics.quantise(product, self.scale.exponent, self.scale.reciprocal))
        assert isinstance(all_of_them, Activations)
        self.activations[:] = 0
        self.activations[: len(all_of_them.values)] = all_of_them.values

    def _matmul(self, d: dict[str, int], stream: _Stream) -> IntArray:
        """Row sums int64 [count]: tail blocks, then full blocks, as TernaryLanes takes them."""
        lanes, count = self.config.lanes, d["count"]
        sums = np.zeros(count, np.int64)
        base = d["blocks"] * lanes
        shared_rows = [2 << i for i in range(4) if d["tails"] >> i & 1]
        made = iter(self._generated(d))  # the words of the first full blocks
        for shared, start in [*_bases(shared_rows, base, lanes), *((1, b * lanes) for b in range(d["blocks"]))]:
            width = lanes // shared
            words = next(made, None) if shared == 1 else None
            if words is None:
                words = stream.take(-(-count // shared))
            if words.max(initial=0) >= packing.CODES:
                raise ProgramError(ErrorCause.BAD_TRIT)
            trits = packing.code_table()[words.reshape(-1, self.config.word_bytes // shared)]
            # Byte g, trit k of a segment is column k*s + g.
            x = self.activations[start : start + width].reshape(packing.TRITS_PER_BYTE, -1)
            sums += np.einsum("rgk,kg->r", trits, x)[:count]
        return sums

    def _generated(self, d: dict[str, int]) -> npt.NDArray[np.uint8]:
        """What the generator makes for a MATMUL, uint8 [blocks, count, word_bytes]."""
        blocks, count = d["generated"], d["count"]
        if not blocks:
            return np.zeros((0, count, self.config.word_bytes), np.uint8)
        seed, rows = d["eps_const"] & 0xFFFFFFFF, range(d["scale_mantissa"], d["scale_mantissa"] + count)
        codes = generator.fixed_rows(seed, d["eps_mantissa"], rows, blocks * self.config.lanes)
        return codes.reshape(count, blocks, self.config.word_bytes).transpose(1, 0, 2)

    def _rows(
        self, d: dict[str, int], sums: IntArray, mantissa: int, shift: int, fresh: bool, result: TokenResult
    ) -> None:
        """The row operation of a descriptor on all its rows."""
        count, op = d["count"], RowOp(d["row_op"])
        y, clamped = numerics.scale_rows(sums, mantissa, shift)
        operand = self.vector[d["source"] : d["source"] + count]
        state = self.state[d["state"] : d["state"] + count]
        if op in _FEEDS_S2 and d["first"]:
            self.s2 = 0
        out, clamped_out = y, clamped
        match op:
            case RowOp.FORGET:
                out = rows.forget(y, self.params[d["param"] : d["param"] + count])
            case RowOp.RECUR:
                out, clamped_out = rows.recur(y, operand, state * (not fresh))
            case RowOp.OUTGATE:
                out, clamped_out = rows.outgate(y, state, d["shift"])
            case RowOp.SILU:
                out = rows.gate_silu(y)
            case RowOp.MUL:
                out, clamped_out = rows.multiply(y, operand, d["shift"])
            case RowOp.RESIDUAL:
                out, clamped_out = rows.residual(y, operand)
        if op in _FEEDS_S2:
            self.s2 += int(rows.squares(y if op is RowOp.OUTGATE else out))
        if op is RowOp.RECUR:
            self.state[d["state"] : d["state"] + count] = out
        elif op is RowOp.LOGIT:
            result.logits = out if d["first"] else np.concatenate([result.logits, out])
        else:
            self.vector[d["target"] : d["target"] + count] = out
        result.trace.append(out)
        result.saturations += int(np.count_nonzero(clamped | clamped_out))


def _scalars(own: Scalars) -> Generator[Offer, Offer, Scalars]:
    """Offer ``own`` and take what is agreed on."""
    agreed = yield own
    assert isinstance(agreed, Scalars)
    return agreed


def _bases(shared_rows: list[int], base: int, lanes: int) -> list[tuple[int, int]]:
    """(rows per word, first column) of each tail block."""
    blocks = []
    for shared in shared_rows:
        blocks.append((shared, base))
        base += lanes // shared
    return blocks
