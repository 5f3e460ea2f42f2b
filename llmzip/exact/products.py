"""Integer products on the CPU: the one inner loop that everything else waits for.

`product_tile(rows)` gives a function for compiled code that multiplies a few rows of int16
activations with sixteen columns of int8 weights. It is built as LLVM instructions, because neither
NumPy nor torch has an exact product that is fast on every processor: on one with AVX2 and without
VNNI, `torch._int_mm` is twenty times as slow as this loop, and float32 BLAS half as fast
(`bench/engine.py` measures all three). Sums are integers, so that how the loop is ordered, tiled or
vectorised cannot change a result.

Weights are packed as `[N / 16, K / 2, 16, 2]`: for each block of sixteen columns and each pair
of terms, the two weights of a column lie side by side, which is the operand that the multiply-
and-add instructions of x86 (`pmaddwd`) take.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

COLUMNS = 16
MAX_ROWS = 6

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32 = ir.FloatType()


@functools.cache
def host_instructions() -> str:
    """Which multiply-and-add the loop is built from: `avx512`, `avx2` or `generic`."""
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512bw") and features.get("avx512vl"):
        return "avx512"
    return "avx2" if features.get("avx2") else "generic"


def product_tile(rows: int) -> Callable[..., None]:
    """A function for compiled code: `tile(a, a_stride, b, n_pairs, c, c_stride)`.

    It writes `c[r, j] = sum over k of a[r, k] * b[k, j]` for `rows` rows r and sixteen columns j.
    All three are addresses, as integers: `a` of int16 with `a_stride` pairs from row to row, `b`
    of one packed int8 block, `c` of int32 with `c_stride` elements from row to row. The caller
    vouches that no sum leaves int32 and that `n_pairs` is at least 1.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        _typing_context: Any, a: Any, a_stride: Any, b: Any, n_pairs: Any, c: Any, c_stride: Any
    ) -> tuple[Any, Callable[..., Any]]:
        signature = types.void(a, a_stride, b, n_pairs, c, c_stride)

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            *operands, c, c_stride = arguments
            tile_builder = _TileBuilder(builder, rows, host_instructions())
            tile_builder.store(tile_builder.sums(*operands), c, c_stride)
            return context.get_dummy_value()

        return signature, generate

    return tile  # type: ignore[no-any-return]


def scaled_tile(rows: int) -> Callable[..., None]:
    """As `product_tile`, with `c` of float32: `c[r, j] = (float32(sum) * row_scale[r]) * column_scale[j]`.

    Takes the addresses of the scales, float32, after those of `product_tile`. Each product is
    rounded once: the builder sets no flag that would let LLVM fuse them.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        _typing_context: Any,
        a: Any,
        a_stride: Any,
        b: Any,
        n_pairs: Any,
        c: Any,
        c_stride: Any,
        row_scale: Any,
        column_scale: Any,
    ) -> tuple[Any, Callable[..., Any]]:
        signature = types.void(a, a_stride, b, n_pairs, c, c_stride, row_scale, column_scale)

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            *operands, c, c_stride, row_scale, column_scale = arguments
            tile_builder = _TileBuilder(builder, rows, host_instructions())
            scaled = tile_builder.scale(tile_builder.sums(*operands), row_scale, column_scale)
            tile_builder.store(scaled, c, c_stride)
            return context.get_dummy_value()

        return signature, generate

    return tile  # type: ignore[no-any-return]


class _TileBuilder:
    """Writes the loop over pairs of terms, its accumulators kept in registers."""

    def __init__(self, builder: Any, rows: int, instructions: str) -> None:
        self.builder = builder
        self.rows = rows
        self.instructions = instructions
        lanes = 8 if instructions == "avx2" else COLUMNS
        self.n_parts = COLUMNS // lanes
        self.acc_type = ir.VectorType(_I32, lanes)
        self.pair_type = ir.VectorType(_I16, 2 * lanes)
        self.byte_type = ir.VectorType(_I8, 2 * lanes)

    def sums(self, a: Any, a_stride: Any, b: Any, n_pairs: Any) -> list[list[Any]]:
        """Emit the loop; the builder is left behind it. Returns the sums by row and part."""
        builder = self.builder
        a_pairs = builder.inttoptr(a, _I32.as_pointer())
        b_bytes = builder.inttoptr(b, _I8.as_pointer())
        entry = builder.block
        loop, done = builder.append_basic_block("pairs"), builder.append_basic_block("store")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(_I64)
        k.add_incoming(_I64(0), entry)
        old = [[self._accumulator(entry) for _ in range(self.n_parts)] for _ in range(self.rows)]
        weights = [self._weights(b_bytes, k, part) for part in range(self.n_parts)]
        new = []
        for row in range(self.rows):
            pair = self._broadcast_pair(a_pairs, builder.add(builder.mul(a_stride, _I64(row)), k))
            new.append([self._multiply_add(old[row][part], pair, weights[part]) for part in range(self.n_parts)])
        following = builder.add(k, _I64(1))
        k.add_incoming(following, loop)
        for row in range(self.rows):
            for part in range(self.n_parts):
                old[row][part].add_incoming(new[row][part], loop)
        builder.cbranch(builder.icmp_signed("<", following, n_pairs), loop, done)
        builder.position_at_end(done)
        return new

    def scale(self, sums: list[list[Any]], row_scale: Any, column_scale: Any) -> list[list[Any]]:
        """Emit the conversion of sums to float32 and their products with both scales."""
        builder = self.builder
        float_type = ir.VectorType(_F32, self.acc_type.count)
        rows = builder.inttoptr(row_scale, _F32.as_pointer())
        columns = builder.inttoptr(column_scale, _F32.as_pointer())
        column_parts = []
        for part in range(self.n_parts):
            address = builder.gep(columns, [_I64(part * self.acc_type.count)])
            loaded = builder.load(builder.bitcast(address, float_type.as_pointer()))
            loaded.align = 4
            column_parts.append(loaded)
        scaled = []
        for row, parts in enumerate(sums):
            factor = self._splat(builder.load(builder.gep(rows, [_I64(row)])), float_type)
            by_row = [builder.fmul(builder.sitofp(part, float_type), factor) for part in parts]
            scaled.append([builder.fmul(x, column) for x, column in zip(by_row, column_parts, strict=True)])
        return scaled

    def _accumulator(self, entry: Any) -> Any:
        phi = self.builder.phi(self.acc_type)
        phi.add_incoming(ir.Constant(self.acc_type, [0] * self.acc_type.count), entry)
        return phi

    def _weights(self, b_bytes: Any, k: Any, part: int) -> Any:
        builder = self.builder
        offset = builder.add(builder.mul(k, _I64(2 * COLUMNS)), _I64(part * self.byte_type.count))
        address = builder.bitcast(builder.gep(b_bytes, [offset]), self.byte_type.as_pointer())
        loaded = builder.load(address)
        loaded.align = 1
        return builder.sext(loaded, self.pair_type)

    def _broadcast_pair(self, a_pairs: Any, index: Any) -> Any:
        loaded = self.builder.load(self.builder.gep(a_pairs, [index]))
        loaded.align = 2
        return self.builder.bitcast(self._splat(loaded, self.acc_type), self.pair_type)

    def _splat(self, value: Any, vector_type: ir.VectorType) -> Any:
        undefined = ir.Constant(vector_type, ir.Undefined)
        first = self.builder.insert_element(undefined, value, _I32(0))
        lanes = ir.Constant(ir.VectorType(_I32, vector_type.count), [0] * vector_type.count)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def _multiply_add(self, accumulator: Any, pair: Any, weights: Any) -> Any:
        names = {"avx2": "llvm.x86.avx2.pmadd.wd", "avx512": "llvm.x86.avx512.pmaddw.d.512"}
        if self.instructions in names:
            kind = ir.FunctionType(self.acc_type, [self.pair_type, self.pair_type])
            function = self.builder.module.declare_intrinsic(names[self.instructions], (), kind)
            return self.builder.add(accumulator, self.builder.call(function, [pair, weights]))
        for parity in (0, 1):
            product = self.builder.mul(self._terms(pair, parity), self._terms(weights, parity))
            accumulator = self.builder.add(accumulator, product)
        return accumulator

    def _terms(self, pairs: Any, parity: int) -> Any:
        """The even or odd int16 terms of a vector of pairs, widened to int32."""
        indices = ir.Constant(
            ir.VectorType(_I32, self.acc_type.count), [2 * i + parity for i in range(self.acc_type.count)]
        )
        undefined = ir.Constant(self.pair_type, ir.Undefined)
        return self.builder.sext(self.builder.shuffle_vector(pairs, undefined, indices), self.acc_type)

    def store(self, values: list[list[Any]], c: Any, c_stride: Any) -> None:
        """Emit the stores of 32-bit values by row and part."""
        builder = self.builder
        kind = values[0][0].type
        elements = builder.inttoptr(c, kind.element.as_pointer())
        for row, parts in enumerate(values):
            for part, value in enumerate(parts):
                index = builder.add(builder.mul(c_stride, _I64(row)), _I64(part * kind.count))
                address = builder.bitcast(builder.gep(elements, [index]), kind.as_pointer())
                builder.store(value, address).align = 4
