# ruff: noqa: TID253
from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from llmzip_kernels.scan_cumulative_sum import cumulative_sum
from llmzip_kernels.scan_protection import (
    METHODS,
    Method,
    merge_gradients,
    merge_spans,
    protect_and_attack,
    protect_and_attack_reference,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TILE = 8
# Lengths and numbers of cases, 2,000 in all.
CASES = {1: 100, 2: 300, 3: 300, 5: 300, 7: 200, 8: 200, 9: 200, 13: 200, 17: 150, 31: 50}
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)
EXCLUSIVE = pytest.mark.parametrize("exclusive", [False, True], ids=["inclusive", "exclusive"])


def quarters(*shape: int, most: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Random multiples of 1/4 up to `most`, half of them 0, so that sums are exact and ties happen."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 4 * most + 1, shape, generator=generator).to(dtype) / 4
    return (numbers * torch.randint(0, 2, shape, generator=generator)).to(DEVICE)


def brute_force(attack: Tensor, protection: Tensor) -> Tensor:
    """Of each column, `[T, C]`."""
    pairs = zip(attack.T.tolist(), protection.T.tolist(), strict=True)
    columns = [protect_and_attack_reference(a, p) for a, p in pairs]
    return torch.tensor(columns, dtype=attack.dtype, device=DEVICE).T


def eager(attack: Tensor, protection: Tensor) -> Tensor:
    """The recurrence by operations that PyTorch differentiates itself, `[T, C]`."""
    p = h = torch.zeros_like(attack[0])
    damage = []
    for a, gain in zip(attack, protection, strict=True):
        vulnerable = p <= a
        h = torch.where(vulnerable, h + (a - p), h)
        p = torch.where(vulnerable, 0.0, p - a) + gain
        damage.append(h)
    return torch.stack(damage)


@EVERY_METHOD
@pytest.mark.parametrize(
    ("length", "dtype"), [*((n, torch.float32) for n in CASES), *((n, torch.float64) for n in (2, 9, 31))], ids=str
)
def test_damage_is_that_of_the_recurrence(length: int, dtype: torch.dtype, method: Method) -> None:
    """Every bit of 2,000 random cases, ties and zeros among them, turn by turn and by tiles."""
    shape = (length, CASES[length])
    attack, protection = (quarters(*shape, most=n, dtype=dtype, seed=n) for n in (3, 4))
    found = protect_and_attack(attack, protection, method=method, tile_rows=TILE)
    assert torch.equal(found, brute_force(attack, protection))


def test_cases_are_of_all_kinds() -> None:
    """Among the random cases there are as many as planned, tokens that are never hit, sometimes and always."""
    assert sum(CASES.values()) == 2000
    attack, protection = (quarters(17, CASES[17], most=n, seed=n) for n in (3, 4))
    damage = brute_force(attack, protection)
    hurt = damage.diff(dim=0) > 0
    attacked = attack[1:] > 0
    assert (hurt & attacked).any()
    assert (~hurt & attacked).any()
    assert (attack[1:] == protection[:-1]).any()


@triton.jit  # type: ignore[untyped-decorator]
def _merge_both_ways(x_ptr, y_ptr, N: tl.constexpr, SPANS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Three spans of each column, x `[9, N]`: y `[2, 3, N]` from the left and from the right."""
    o = tl.arange(0, N)
    a1, a2, a3 = tl.load(x_ptr + o), tl.load(x_ptr + N + o), tl.load(x_ptr + 2 * N + o)
    b1, b2, b3 = tl.load(x_ptr + 3 * N + o), tl.load(x_ptr + 4 * N + o), tl.load(x_ptr + 5 * N + o)
    c1, c2, c3 = tl.load(x_ptr + 6 * N + o), tl.load(x_ptr + 7 * N + o), tl.load(x_ptr + 8 * N + o)
    if SPANS:
        ab1, ab2 = merge_spans(a1, a2, b1, b2)
        left1, left2 = merge_spans(ab1, ab2, c1, c2)
        bc1, bc2 = merge_spans(b1, b2, c1, c2)
        right1, right2 = merge_spans(a1, a2, bc1, bc2)
        left3, right3 = a3, a3
    else:
        a2, b2, c2 = (a2 > 2).to(tl.int32), (b2 > 2).to(tl.int32), (c2 > 2).to(tl.int32)
        # Without a vulnerable turn there is no e.
        a3, b3, c3 = a3 * a2, b3 * b2, c3 * c2
        ab1, ab2, ab3 = merge_gradients(a1, a2, a3, b1, b2, b3)
        left1, left2, left3 = merge_gradients(ab1, ab2, ab3, c1, c2, c3)
        bc1, bc2, bc3 = merge_gradients(b1, b2, b3, c1, c2, c3)
        right1, right2, right3 = merge_gradients(a1, a2, a3, bc1, bc2, bc3)
    tl.store(y_ptr + o, left1)
    tl.store(y_ptr + N + o, left2)
    tl.store(y_ptr + 2 * N + o, left3)
    tl.store(y_ptr + 3 * N + o, right1)
    tl.store(y_ptr + 4 * N + o, right2)
    tl.store(y_ptr + 5 * N + o, right3)


@pytest.mark.parametrize("spans", [True, False], ids=["damage", "gradients"])
def test_merging_is_associative(spans: bool) -> None:
    """Of 4,096 random triples, so a scan may merge them in any order."""
    x = quarters(9, 4096, most=5)
    y = torch.full((2, 3, 4096), torch.nan, device=DEVICE)
    _merge_both_ways[(1,)](x, y, 4096, spans)
    assert torch.equal(y[0], y[1])
    assert all(len(rows.unique()) > 1 for rows in y[0])


@EVERY_METHOD
@EXCLUSIVE
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 19])
def test_gradients_are_those_of_the_recurrence(length: int, exclusive: bool, method: Method) -> None:
    """Of attacks and gains, for random gradients from above; ties, where there are several, are left out."""
    generator = torch.Generator().manual_seed(length)
    sizes = (0.5, 0.6, 1.0)
    attack, protection, upstream = (
        size * torch.rand(2, length, 11, generator=generator, dtype=torch.float64).to(DEVICE) for size in sizes
    )
    upstream -= 0.4
    inputs = [attack.requires_grad_(), protection.requires_grad_()]
    expected = torch.stack([eager(a, p) for a, p in zip(attack, protection, strict=True)])
    if exclusive:
        expected = functional.pad(expected, (0, 0, 1, 0))[:, :-1]
    found = protect_and_attack(attack, protection, exclusive, method, TILE)
    torch.testing.assert_close(found, expected, atol=1e-14, rtol=0)
    gradients = torch.autograd.grad((expected * upstream).sum(), inputs, materialize_grads=True)
    for x, y in zip(torch.autograd.grad(found, inputs, upstream), gradients, strict=True):
        torch.testing.assert_close(x, y, atol=1e-14, rtol=0)


@EVERY_METHOD
def test_gradients_are_those_of_finite_differences(method: Method) -> None:
    """In pieces that are linear, differences are exact but for rounding."""
    generator = torch.Generator().manual_seed(4)
    attack, protection = (torch.rand(1, 5, 3, generator=generator, dtype=torch.float64).to(DEVICE) for _ in range(2))

    def squares(attack: Tensor, protection: Tensor) -> Tensor:
        return protect_and_attack(attack, protection, method=method, tile_rows=2).square()

    assert torch.autograd.gradcheck(squares, (attack.requires_grad_(), protection.requires_grad_()), fast_mode=True)


def test_methods_agree_on_random_numbers() -> None:
    """To rounding: sums of 40 numbers below 1 have an error of at most 40 * 40 * 6e-8."""
    generator = torch.Generator().manual_seed(5)
    attack, protection = (torch.rand(40, 20, generator=generator).to(DEVICE) for _ in range(2))
    found = [protect_and_attack(attack, protection, method=method, tile_rows=TILE) for method in METHODS]
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[0], eager(attack, protection), atol=0, rtol=0)


@EVERY_METHOD
@EXCLUSIVE
def test_without_protection_damage_is_the_cumulative_sum(exclusive: bool, method: Method) -> None:
    """Its gradient too."""
    attack = quarters(17, 5, most=3).requires_grad_()
    upstream = quarters(17, 5, most=3, seed=1)
    found = protect_and_attack(attack, torch.zeros_like(attack), exclusive, method, TILE)
    expected = cumulative_sum(attack, exclusive=exclusive)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(x, attack, upstream)[0] for x in (found, expected)]
    assert torch.equal(gradients[0], gradients[1])


@EVERY_METHOD
def test_much_protection_leaves_the_first_attack_only(method: Method) -> None:
    """What is gained in a turn helps from the next one on; where the first attack is 0 there is no damage at all."""
    attack = quarters(17, 5, most=3)
    attack[0, 0] = 0
    found = protect_and_attack(attack, torch.full_like(attack, 1000.0), method=method, tile_rows=TILE)
    assert torch.equal(found, attack[:1].expand(17, 5))
    assert found[:, 0].count_nonzero() == 0


@pytest.mark.parametrize(
    ("attack", "protection", "message"),
    [
        (torch.zeros(2, 2, dtype=torch.float16), torch.zeros(2, 2), "expected float32 or float64, found torch.float16"),
        (torch.zeros(2, 2), torch.zeros(2, 3), r"protection: expected \(\(2, 2\), .* found \(\(2, 3\)"),
    ],
    ids=["type", "shape"],
)
def test_what_does_not_fit_is_refused(attack: Tensor, protection: Tensor, message: str) -> None:
    """The message says what was expected."""
    with pytest.raises(ValueError, match=message):
        protect_and_attack(attack, protection)
