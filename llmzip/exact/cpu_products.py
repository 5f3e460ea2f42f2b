"""Matrix products of quantised rows, compiled: one thread each, free of the interpreter's lock.

What `compiled` or `brief` marks here and in the other modules of the CPU backend equals its twin in
`llmzip.exact.reference` bit for bit. Rules that keep it so: no `fastmath`; every float literal is a float32; rounding
half to even is `(x + 1.5 * 2**23) - 1.5 * 2**23`, exact for |x| < 2**22; a maximum is taken over the bits, where
compiled code can use vectors. Bit equality is tested, not assumed.
"""

from __future__ import annotations

import numba
import numpy as np

from llmzip.exact.products import COLUMNS, MAX_ROWS, product_tile, scaled_tile

_TERMS_IN_INT32 = 2048

compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
# For calls of tens of microseconds, which keep the lock: a thread that lets it go may wait longer to have it back.
brief = numba.njit(cache=True, error_model="numpy")

_tile_1, _tile_2, _tile_3 = product_tile(1), product_tile(2), product_tile(3)
_tile_4, _tile_6 = product_tile(4), product_tile(6)
_scaled_1, _scaled_2, _scaled_3 = scaled_tile(1), scaled_tile(2), scaled_tile(3)
_scaled_4, _scaled_6 = scaled_tile(4), scaled_tile(6)


@compiled
def products(a, a_stride, b, n_pairs, c, c_stride, n_rows):  # type: ignore[no-untyped-def]
    """Rows of int16 times sixteen packed columns, in tiles of at most six rows."""
    done = 0
    while done < n_rows:
        left = n_rows - done
        a_row, c_row = a + done * a_stride * 4, c + done * c_stride * 4
        if left >= 6:
            _tile_6(a_row, a_stride, b, n_pairs, c_row, c_stride)
            done += 6
        elif left >= 4:
            _tile_4(a_row, a_stride, b, n_pairs, c_row, c_stride)
            done += 4
        elif left == 3:
            _tile_3(a_row, a_stride, b, n_pairs, c_row, c_stride)
            done += 3
        elif left == 2:
            _tile_2(a_row, a_stride, b, n_pairs, c_row, c_stride)
            done += 2
        else:
            _tile_1(a_row, a_stride, b, n_pairs, c_row, c_stride)
            done += 1


@compiled
def scaled_products(a, a_stride, b, n_pairs, c, c_stride, row_scale, column_scale, n_rows):  # type: ignore[no-untyped-def]
    """As `products`, the sums scaled to float32."""
    done = 0
    while done < n_rows:
        left = n_rows - done
        a_row, c_row, scale = a + done * a_stride * 4, c + done * c_stride * 4, row_scale + done * 4
        if left >= 6:
            _scaled_6(a_row, a_stride, b, n_pairs, c_row, c_stride, scale, column_scale)
            done += 6
        elif left >= 4:
            _scaled_4(a_row, a_stride, b, n_pairs, c_row, c_stride, scale, column_scale)
            done += 4
        elif left == 3:
            _scaled_3(a_row, a_stride, b, n_pairs, c_row, c_stride, scale, column_scale)
            done += 3
        elif left == 2:
            _scaled_2(a_row, a_stride, b, n_pairs, c_row, c_stride, scale, column_scale)
            done += 2
        else:
            _scaled_1(a_row, a_stride, b, n_pairs, c_row, c_stride, scale, column_scale)
            done += 1


@compiled
def pack_matrix(weight, packed):  # type: ignore[no-untyped-def]
    """Lay out int8 `[N, K]` as `[blocks, pairs, 16, 2]`, zeros where N or K are padded."""
    n_columns, n_terms = weight.shape
    for block in range(packed.shape[0]):
        for pair in range(packed.shape[1]):
            for column in range(COLUMNS):
                for parity in range(2):
                    n, k = block * COLUMNS + column, 2 * pair + parity
                    inside = n < n_columns and k < n_terms
                    packed[block, pair, column, parity] = weight[n, k] if inside else 0


@compiled
def linear(q, row_scale, wide, packed, scale, bias, residual, y):  # type: ignore[no-untyped-def]
    """Twin of `reference.linear`. `wide`: sums may leave int32, so add blocks of terms in int64.

    q int16 `[R, 2 * pairs]`, packed int8 `[blocks, pairs, 16, 2]`, scale and bias float32 (bias
    may be empty), y float32 `[R, N]`. A residual `[R, N]` (or empty) is added last.
    """
    n_rows, n_columns = y.shape
    n_pairs = packed.shape[1]
    for block in range(packed.shape[0]):
        a, b = q.ctypes.data, packed.ctypes.data + block * n_pairs * 2 * COLUMNS
        first = block * COLUMNS
        if wide or n_columns - first < COLUMNS:
            _linear_block(a, b, n_pairs, row_scale, wide, scale[first:], y[:, first : first + COLUMNS])
        else:
            c, column_scale = y.ctypes.data + first * 4, scale.ctypes.data + first * 4
            scaled_products(a, n_pairs, b, n_pairs, c, n_columns, row_scale.ctypes.data, column_scale, n_rows)
    if bias.shape[0]:
        for r in range(n_rows):
            for j in range(n_columns):
                y[r, j] += bias[j]
    for r in range(residual.shape[0]):
        for j in range(n_columns):
            y[r, j] += residual[r, j]


@compiled
def _linear_block(a, b, n_pairs, row_scale, wide, scale, y):  # type: ignore[no-untyped-def]
    """Up to sixteen columns whose sums are wide, or fewer than sixteen."""
    n_rows, width = y.shape
    acc = np.empty((MAX_ROWS, COLUMNS), np.int32)
    total = np.empty((MAX_ROWS, COLUMNS), np.int64)
    for row in range(0, n_rows, MAX_ROWS):
        n = min(MAX_ROWS, n_rows - row)
        terms = 2 * n_pairs if not wide else _TERMS_IN_INT32
        total[:n] = 0
        for pair in range(0, n_pairs, terms // 2):
            some = min(terms // 2, n_pairs - pair)
            a_part = a + (row * n_pairs + pair) * 4
            products(a_part, n_pairs, b + pair * 2 * COLUMNS, some, acc.ctypes.data, COLUMNS, n)
            for r in range(n):
                for j in range(COLUMNS):
                    total[r, j] += acc[r, j]
        for r in range(n):
            for j in range(width):
                y[row + r, j] = (np.float32(total[r, j]) * row_scale[row + r]) * scale[j]
