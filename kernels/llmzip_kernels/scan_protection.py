# ruff: noqa: TID253
"""Protect and attack: what each token has suffered when it also gathers protection, in float32 and float64.

Turn by turn, a token has protection p and damage h, both 0 at first. An attack a is worn down by the protection: if
p <= a, the token is vulnerable, h grows by a - p, and p becomes 0; else p falls by a. Then the turn's own gain P is
added to p: it helps from the next turn on. The result is h after each attack. Without protection it is the cumulative
sum of the attacks.

sequential: a program goes through the turns of some tokens, as above.
tiles: a turn with net attack n = a - P (of the turn before) is the pair (u, v) = (max(-n, 0), max(n, 0)) of protection
    left and damage done. Two spans of turns merge to (u2 + max(u1 - v2, 0), v1 + max(v2 - u1, 0)), and that is
    associative: the turns of a tile are scanned in parallel, and tiles one after the other.

Gradients: with G the sum of the gradients from above over a turn and all later ones, and e = G at the first vulnerable
turn from a turn on, or 0 where there is none, that of the turn's attack is e, and that of its gain is -e of the next
turn. Where p = a exactly, this is one of several subgradients. Backward, e is again one pass over the turns or a scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

Method = Literal["sequential", "tiles"]
METHODS: tuple[Method, ...] = ("sequential", "tiles")
_COLUMNS = 32
_TILE_ROWS = 64


def protect_and_attack(
    attack: Tensor, protection: Tensor, exclusive: bool = False, method: Method = "tiles", tile_rows: int = _TILE_ROWS
) -> Tensor:
    """The damage after each turn.

    Args:
        attack: at least 0, `[..., T, C]`: T turns of C tokens, float32 or float64.
        protection: what is gained in each turn, likewise.
        exclusive: leave the turn's own attack out, so that the first row is 0.
        method: how, see above.
        tile_rows: turns of a tile, a power of two.

    Returns:
        F, of the shape and type of `attack`; it can be differentiated, once.
    """
    if attack.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"protect and attack: expected float32 or float64, found {attack.dtype}")
    if (attack.shape, attack.dtype) != (protection.shape, protection.dtype):
        expected, found = ((tuple(x.shape), x.dtype) for x in (attack, protection))
        raise ValueError(f"protection: expected {expected} as the attack, found {found}")
    damage: Tensor = _ProtectAndAttack.apply(attack, protection, exclusive, method, tile_rows)
    return damage


def protect_and_attack_reference(attack: Sequence[float], protection: Sequence[float]) -> list[float]:
    """The damage of one token after each turn.

    >>> protect_and_attack_reference([1, 2, 4, 3], [3, 0, 2, 0])
    [1, 1, 4, 5]
    """
    p: float = 0
    h: float = 0
    damage = []
    for a, gain in zip(attack, protection, strict=True):
        if p <= a:
            h, p = h + (a - p), 0
        else:
            p -= a
        damage.append(h)
        p += gain
    return damage


class _ProtectAndAttack(torch.autograd.Function):
    """Forward and backward by the same method; who was vulnerable when is kept, one byte each."""

    @staticmethod
    def forward(
        ctx: Any, attack: Tensor, protection: Tensor, exclusive: bool, method: Method, tile_rows: int
    ) -> Tensor:
        a, p = attack.contiguous(), protection.contiguous()
        damage, vulnerable = torch.empty_like(a), torch.empty_like(a, dtype=torch.int8)
        _launch(_forward_kernels, method, tile_rows, exclusive, a, p, damage, vulnerable)
        ctx.save_for_backward(vulnerable)
        ctx.choices = (method, tile_rows, exclusive)
        return damage

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (vulnerable,) = ctx.saved_tensors
        # Rows that no later damage depends on stay as they are.
        d_attack, d_protection = torch.zeros_like(dy), torch.zeros_like(dy)
        d_attack, d_protection = d_attack.contiguous(), d_protection.contiguous()
        _launch(_backward_kernels, *ctx.choices, dy.contiguous(), vulnerable, d_attack, d_protection)
        return d_attack, d_protection, None, None, None


def _launch(kernels: dict[Method, Any], method: Method, tile_rows: int, exclusive: bool, *arrays: Tensor) -> None:
    T, C = arrays[0].shape[-2:]
    if not arrays[0].numel():
        return
    block = min(_COLUMNS, triton.next_power_of_2(C))
    grid = (triton.cdiv(C, block), arrays[0].numel() // (T * C))
    options = {"BLOCK_T": tile_rows} if method == "tiles" else {"num_warps": 1}
    with torch.cuda.device_of(arrays[0]):
        kernels[method][grid](*arrays, T, C, EXCLUSIVE=exclusive, BLOCK_C=block, **options)


@triton.jit
def _sequential_kernel(
    attack_ptr, protection_ptr, damage_ptr, vulnerable_ptr, T, C, EXCLUSIVE: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """All `[R, T, C]`; a program has all turns of some tokens, row t of the result is that of turn t - EXCLUSIVE."""
    o_c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    o_first = tl.program_id(1).to(tl.int64) * T * C + o_c
    p = tl.zeros([BLOCK_C], attack_ptr.dtype.element_ty)
    h = tl.zeros([BLOCK_C], attack_ptr.dtype.element_ty)
    for i_t in range(T):
        turn = i_t - EXCLUSIVE
        p += tl.load(protection_ptr + o_first + (turn - 1) * C, (o_c < C) & (turn > 0), other=0.0)
        a = tl.load(attack_ptr + o_first + turn * C, (o_c < C) & (turn >= 0), other=0.0)
        vulnerable = p <= a
        h = tl.where(vulnerable, h + (a - p), h)
        p = tl.where(vulnerable, 0.0, p - a)
        tl.store(damage_ptr + o_first + i_t * C, h, o_c < C)
        tl.store(vulnerable_ptr + o_first + i_t * C, vulnerable.to(tl.int8), o_c < C)


@triton.jit
def _sequential_backward_kernel(
    dy_ptr, vulnerable_ptr, d_attack_ptr, d_protection_ptr, T, C, EXCLUSIVE: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """All `[R, T, C]`; a program has all turns of some tokens, the last one first."""
    o_c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    o_first = tl.program_id(1).to(tl.int64) * T * C + o_c
    later = tl.zeros([BLOCK_C], dy_ptr.dtype.element_ty)
    e = tl.zeros([BLOCK_C], dy_ptr.dtype.element_ty)
    for i_turn in range(T):
        i_t = T - 1 - i_turn
        turn = i_t - EXCLUSIVE
        later += tl.load(dy_ptr + o_first + i_t * C, o_c < C, other=0.0)
        vulnerable = tl.load(vulnerable_ptr + o_first + i_t * C, o_c < C, other=0)
        e = tl.where(vulnerable != 0, later, e)
        tl.store(d_attack_ptr + o_first + turn * C, e, (o_c < C) & (turn >= 0))
        tl.store(d_protection_ptr + o_first + (turn - 1) * C, -e, (o_c < C) & (turn > 0))


@triton.jit
def merge_spans(u1, v1, u2, v2):
    """Protection left and damage done by two spans of turns, the earlier one first."""
    return u2 + tl.maximum(u1 - v2, 0.0), v1 + tl.maximum(v2 - u1, 0.0)


@triton.jit
def merge_gradients(sum1, any1, e1, sum2, any2, e2):
    """Sum, whether there was a vulnerable turn, and e of two spans of turns, the later one first."""
    return sum1 + sum2, any1 | any2, tl.where(any2 != 0, sum1 + e2, e1)


@triton.jit
def _last_row(b_x, BLOCK_T: tl.constexpr):
    return tl.sum(tl.where((tl.arange(0, BLOCK_T) == BLOCK_T - 1)[:, None], b_x, 0.0), axis=0)


@triton.jit
def _tiles_kernel(
    attack_ptr, protection_ptr, damage_ptr, vulnerable_ptr, T, C,
    EXCLUSIVE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """As the sequential one, a tile of turns at a time."""
    o_c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = (o_c < C)[None, :]
    i_first = tl.program_id(1).to(tl.int64) * T * C
    carried_u = tl.zeros([BLOCK_C], attack_ptr.dtype.element_ty)
    carried_v = tl.zeros([BLOCK_C], attack_ptr.dtype.element_ty)
    for i_t in range(tl.cdiv(T, BLOCK_T)):
        o_t = i_t * BLOCK_T + tl.arange(0, BLOCK_T)
        turn = o_t - EXCLUSIVE
        o_x = i_first + turn[:, None] * C + o_c[None, :]
        a = tl.load(attack_ptr + o_x, ((turn >= 0) & (o_t < T))[:, None] & m_c, other=0.0)
        net = a - tl.load(protection_ptr + o_x - C, ((turn > 0) & (o_t < T))[:, None] & m_c, other=0.0)
        u, v = tl.associative_scan((tl.maximum(-net, 0.0), tl.maximum(net, 0.0)), 0, merge_spans)
        u, v = merge_spans(carried_u[None, :], carried_v[None, :], u, v)
        o_y, m_y = i_first + o_t[:, None] * C + o_c[None, :], (o_t < T)[:, None] & m_c
        tl.store(damage_ptr + o_y, v, m_y)
        tl.store(vulnerable_ptr + o_y, (u == 0).to(tl.int8), m_y)
        carried_u, carried_v = _last_row(u, BLOCK_T), _last_row(v, BLOCK_T)


@triton.jit
def _tiles_backward_kernel(
    dy_ptr, vulnerable_ptr, d_attack_ptr, d_protection_ptr, T, C,
    EXCLUSIVE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """As the sequential one, a tile of turns at a time, the last turn first."""
    o_c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = (o_c < C)[None, :]
    i_first = tl.program_id(1).to(tl.int64) * T * C
    later = tl.zeros([BLOCK_C], dy_ptr.dtype.element_ty)
    carried_e = tl.zeros([BLOCK_C], dy_ptr.dtype.element_ty)
    for i_t in range(tl.cdiv(T, BLOCK_T)):
        o_t = T - 1 - i_t * BLOCK_T - tl.arange(0, BLOCK_T)
        turn = o_t - EXCLUSIVE
        o_y, m_y = i_first + o_t[:, None] * C + o_c[None, :], (o_t >= 0)[:, None] & m_c
        b_dy = tl.load(dy_ptr + o_y, m_y, other=0.0)
        vulnerable = tl.load(vulnerable_ptr + o_y, m_y, other=0).to(tl.int32)
        total, some, e = tl.associative_scan((b_dy, vulnerable, b_dy * vulnerable), 0, merge_gradients)
        e = tl.where(some != 0, later[None, :] + e, carried_e[None, :])
        o_x = i_first + turn[:, None] * C + o_c[None, :]
        tl.store(d_attack_ptr + o_x, e, (turn >= 0)[:, None] & m_c)
        tl.store(d_protection_ptr + o_x - C, -e, (turn > 0)[:, None] & m_c)
        later += _last_row(total, BLOCK_T)
        carried_e = _last_row(e, BLOCK_T)


_forward_kernels: dict[Method, Any] = {"sequential": _sequential_kernel, "tiles": _tiles_kernel}
_backward_kernels: dict[Method, Any] = {"sequential": _sequential_backward_kernel, "tiles": _tiles_backward_kernel}
