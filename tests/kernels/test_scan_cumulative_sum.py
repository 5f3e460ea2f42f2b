# ruff: noqa: TID253
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from llmzip_kernels.scan_cumulative_sum import METHODS, Method, cumulative_sum, cumulative_sum_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TILE = 8
# One, a prime, a power of two, one past a tile, one past a power of two, several tiles.
LENGTHS = (1, 2, 7, 8, 9, 17, 53)
EXCLUSIVE = pytest.mark.parametrize("exclusive", [False, True], ids=["inclusive", "exclusive"])
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


def eighths(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Random multiples of 1/8, of which sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-80, 81, shape, generator=generator).to(DEVICE, dtype) / 8


def brute_force(x: Tensor, exclusive: bool, reverse: bool = False) -> Tensor:
    """Of the second last dimension."""
    sums = cumulative_sum_reference(x.movedim(-2, 0).cpu().numpy(), exclusive, reverse)
    return torch.from_numpy(sums).movedim(0, -2).to(DEVICE)


@EVERY_METHOD
@EXCLUSIVE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_sums_and_gradients_are_those_by_hand(length: int, dtype: torch.dtype, exclusive: bool, method: Method) -> None:
    """Every bit of 2,800 random cases for each method; gradients are sums from the end of random ones from above."""
    x = eighths(3, length, 34, dtype=dtype).requires_grad_()
    found = cumulative_sum(x, exclusive=exclusive, method=method, tile_rows=TILE)
    assert torch.equal(found, brute_force(x.detach(), exclusive))
    upstream = eighths(3, length, 34, dtype=dtype, seed=1)
    (gradient,) = torch.autograd.grad(found, x, upstream)
    assert torch.equal(gradient, brute_force(upstream, exclusive, reverse=True))


def test_reference_equals_an_example_by_hand() -> None:
    """Forward and from the end, with the own element and without."""
    x = np.array([1.0, 2.0, 4.0])
    assert cumulative_sum_reference(x).tolist() == [1, 3, 7]
    assert cumulative_sum_reference(x, exclusive=True).tolist() == [0, 1, 3]
    assert cumulative_sum_reference(x, reverse=True).tolist() == [7, 6, 4]
    assert cumulative_sum_reference(x, exclusive=True, reverse=True).tolist() == [6, 4, 0]


@EVERY_METHOD
def test_gradient_begins_with_the_last_row(method: Method) -> None:
    """The first row's gradient is counted once, in the first row's sum: with (8, 1, 1) from above it is 10, 2, 1."""
    x = torch.zeros(3, 1, device=DEVICE, requires_grad=True)
    upstream = torch.tensor([[8.0], [1.0], [1.0]], device=DEVICE)
    (gradient,) = torch.autograd.grad(cumulative_sum(x, method=method), x, upstream)
    assert gradient.flatten().tolist() == [10, 2, 1]


@EVERY_METHOD
@EXCLUSIVE
def test_gradients_are_those_of_finite_differences(exclusive: bool, method: Method) -> None:
    """And second derivatives, which are 0, can be asked for."""
    x = torch.randn(1, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x = x.to(DEVICE).requires_grad_()

    def squares(x: Tensor) -> Tensor:
        return cumulative_sum(x, exclusive=exclusive, method=method, tile_rows=2).square()

    assert torch.autograd.gradcheck(squares, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(squares, x, fast_mode=True)


@EVERY_METHOD
@pytest.mark.parametrize(("shape", "dim"), [((11,), 0), ((4, 11), -1), ((11, 4), 0), ((2, 11, 3, 2), 1)], ids=str)
def test_any_dimension_can_be_summed_along(shape: tuple[int, ...], dim: int, method: Method) -> None:
    """As by PyTorch."""
    x = eighths(*shape)
    assert torch.equal(cumulative_sum(x, dim, method=method, tile_rows=TILE), x.cumsum(dim))


@EVERY_METHOD
def test_no_rows_have_no_sums(method: Method) -> None:
    """Nor have no columns."""
    for shape in ((2, 0, 3), (2, 3, 0)):
        assert cumulative_sum(torch.zeros(shape, device=DEVICE), method=method).shape == shape


@EVERY_METHOD
def test_random_numbers_are_summed_to_rounding(method: Method) -> None:
    """The longest chain of additions is the length, each of which rounds to 6e-8 of a sum below 100."""
    x = torch.randn(1, 300, 3, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    expected = x.double().cumsum(dim=1)
    torch.testing.assert_close(cumulative_sum(x, method=method).double(), expected, atol=300 * 6e-8 * 100, rtol=0)
    exact = cumulative_sum(x.double(), method=method)
    torch.testing.assert_close(exact, expected, atol=300 * 1.2e-16 * 100, rtol=0)


def test_other_types_are_refused() -> None:
    """The message says which there are."""
    with pytest.raises(ValueError, match=r"expected float32 or float64, found torch\.float16"):
        cumulative_sum(torch.zeros(2, 2, dtype=torch.float16))
