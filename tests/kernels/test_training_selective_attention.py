# ruff: noqa: TID253
from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from llmzip_kernels import training_selective_attention as kernels
from llmzip_kernels.training_selective_attention import Selection
from llmzip_training import selection as eager
from llmzip_training.selection import SelectionRules

RULES = [
    *(SelectionRules(first, own) for first in (True, False) for own in (True, False)),
    SelectionRules(enabled=False),
]
# Windows, heads, key heads, length, width; tiles have 16 rows.
SHAPES = {
    "one": (1, 1, 1, 1, 4),
    "prime": (2, 4, 2, 13, 6),
    "tile": (1, 2, 1, 16, 16),
    "tile-and-one": (2, 2, 2, 17, 5),
    "tiles": (1, 6, 2, 37, 3),
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LIMIT = 0.7
SCALE = 0.3


def random_heads(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values that want gradients."""
    B, H, Hk, T, K = shape
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, n, T, K, generator=generator, dtype=torch.float64).to(DEVICE, dtype) for n in (H, Hk, Hk))
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def by_kernels(heads: Sequence[Tensor], rules: SelectionRules, block: int = 16) -> tuple[Tensor, Tensor]:
    """The mixed values, and what each query has forgotten."""
    q, k, v = heads
    return kernels.selective_attention(q, k, v, Selection(SCALE, *rules, LIMIT), block)


def by_reference(heads: Sequence[Tensor], rules: SelectionRules) -> tuple[Tensor, Tensor]:
    """The same by the eager code."""
    q, k, v = heads
    y, blocks = eager.selective_attention(q, k, v, SCALE, rules)
    return y, torch.cat([block.clamp(max=LIMIT).sum(dim=-1) / LIMIT for block in blocks], dim=1)


def gradients_of(outputs: Sequence[Tensor], heads: Sequence[Tensor], upstream: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of queries, keys and values, for these gradients from above; zeros where there is none."""
    loss = torch.stack([(x * g).sum() for x, g in zip(outputs, upstream, strict=True)]).sum()
    return torch.autograd.grad(loss, heads, materialize_grads=True)


def random_like(*tensors: Tensor) -> list[Tensor]:
    """Gradients from above."""
    generator = torch.Generator().manual_seed(9)
    return [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in tensors]


def expect_close(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """No element of any tensor is further off."""
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x.double(), y.double(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_and_gradients_are_those_of_eager_code(
    shape: tuple[int, int, int, int, int], rules: SelectionRules
) -> None:
    """In float64 to 1e-12: sums of fewer than 1,000 terms of a size below 10, each rounded to 1e-16 of it."""
    heads = random_heads(shape)
    found, expected = by_kernels(heads, rules), by_reference(heads, rules)
    expect_close(found, expected, 1e-12)
    upstream = random_like(*expected)
    gradients = gradients_of(expected, heads, upstream)
    expect_close(gradients_of(found, heads, upstream), gradients, 1e-12)


# What is rounded in the kernels is rounded in the eager code too, where it is not float64.
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float32, 2e-5),
        (torch.float16, 2e-2),
        pytest.param(
            *(torch.bfloat16, 0.16),
            marks=pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter does not multiply bfloat16"),
        ),
    ],
    ids=str,
)
def test_narrow_types_are_near_float64(dtype: torch.dtype, tolerance: float) -> None:
    """Their rounding to 6e-8, 5e-4 and 4e-3 grows with sums over 37 queries, 37 keys and 6 heads."""
    heads = random_heads(SHAPES["tiles"], dtype)
    exact = tuple(x.detach().double().requires_grad_() for x in heads)
    found, expected = by_kernels(heads, SelectionRules()), by_reference(exact, SelectionRules())
    assert (found[0].dtype, found[1].dtype) == (dtype, torch.float32)
    expect_close(found, expected, tolerance)
    upstream = random_like(*found)
    gradients = gradients_of(expected, exact, [x.double() for x in upstream])
    expect_close(gradients_of(found, heads, upstream), gradients, tolerance)


@pytest.mark.parametrize("part", [0, 1], ids=["attention", "penalty"])
def test_each_output_has_gradients_of_its_own(part: int) -> None:
    """Where nothing comes from above for the other one."""
    heads = random_heads(SHAPES["tiles"])
    found, expected = ([attend(heads, SelectionRules())[part]] for attend in (by_kernels, by_reference))
    upstream = random_like(*expected)
    gradients = gradients_of(expected, heads, upstream)
    assert gradients[0].abs().max() > 0.1
    expect_close(gradients_of(found, heads, upstream), gradients, 1e-12)


@pytest.mark.parametrize("mask_self", [False, True])
def test_gradients_are_those_of_finite_differences(mask_self: bool) -> None:
    """Of a window of two tiles, along random directions."""
    heads = random_heads((1, 2, 1, 18, 2))
    upstream = random_like(*by_kernels(heads, SelectionRules()))

    def loss(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y, forgotten = by_kernels((q, k, v), SelectionRules(mask_self=mask_self))
        return (y * upstream[0]).sum() + (forgotten * upstream[1]).sum()

    assert torch.autograd.gradcheck(loss, heads, fast_mode=True)


def test_penalty_equals_an_example_by_hand() -> None:
    """Scores (1 . . .), (2 2 . .), (-1 -1 -2 .), (3 3 6 3) make F (0), (1 0), (3 2 0), (3 2 0 0); 2.5 nats forget."""
    q, k = (torch.tensor(x, device=DEVICE).view(1, 1, 4, 1).requires_grad_() for x in ((1.0, 2, -1, 3), (1.0, 1, 2, 1)))
    _, forgotten = kernels.selective_attention(q, k, k, Selection(1.0, False, True, limit=2.5))
    torch.testing.assert_close(forgotten.cpu(), torch.tensor([[0.0, 1 / 2.5, (2.5 + 2) / 2.5, (2.5 + 2) / 2.5]]))
    # The score 1 counts for query 1 only, since the other ones have forgotten its key already; the second 2 for both.
    dq, dk = torch.autograd.grad(forgotten.sum(), (q, k))
    torch.testing.assert_close(dq.flatten().cpu(), torch.tensor([1 / 2.5, 2 / 2.5, 0.0, 0.0]))
    torch.testing.assert_close(dk.flatten().cpu(), torch.tensor([1 / 2.5, 2 * 2 / 2.5, 0.0, 0.0]))


def test_size_of_tiles_changes_rounding_only() -> None:
    """From 16 rows to all of a window at once."""
    heads = random_heads(SHAPES["tiles"])
    expected = by_kernels(heads, SelectionRules())
    upstream = random_like(*expected)
    gradients = gradients_of(expected, heads, upstream)
    for block in (32, 64):
        found = by_kernels(heads, SelectionRules(), block)
        expect_close(found, expected, 1e-13)
        expect_close(gradients_of(found, heads, upstream), gradients, 1e-12)


def test_window_alone_has_the_bits_that_it_has_in_a_batch() -> None:
    """And so has whatever is computed twice."""
    heads = random_heads((2, 2, 1, 17, 4), torch.float32)
    both = by_kernels(heads, SelectionRules())
    again = by_kernels(heads, SelectionRules())
    alone = by_kernels([x[1:] for x in heads], SelectionRules())
    upstream = random_like(*both)
    gradients = gradients_of(both, heads, upstream)
    assert all(map(torch.equal, gradients, gradients_of(again, heads, upstream)))
    assert all(torch.equal(x[1:], y) for x, y in zip(both, alone, strict=True))
    of_one = gradients_of(alone, heads, [x[1:] for x in upstream])
    assert all(torch.equal(x[1:], y[1:]) for x, y in zip(gradients, of_one, strict=True))


def test_strides_do_not_matter() -> None:
    """Heads as projections leave them, `[B, T, H, K]` in memory, or with any order of elements in a row."""
    heads = random_heads((2, 2, 1, 17, 4), torch.float32)
    expected = by_kernels(heads, SelectionRules())
    upstream = random_like(*expected)
    gradients = gradients_of(expected, heads, upstream)
    for order in ((0, 2, 1, 3), (3, 2, 1, 0)):
        turned = [x.detach().permute(order).contiguous().permute(order).requires_grad_() for x in heads]
        assert not turned[0].is_contiguous()
        found = by_kernels(turned, SelectionRules())
        assert all(map(torch.equal, found, expected))
        above = [upstream[0].permute(order).contiguous().permute(order), upstream[1]]
        assert all(map(torch.equal, gradients_of(found, turned, above), gradients))


def test_nothing_square_is_kept() -> None:
    """What the backward pass is left with is smaller than one matrix of scores, and so is each part of F."""
    q, k, v = random_heads((1, 1, 1, 96, 2))
    sizes: list[int] = []

    def note(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        by_kernels((q, k, v), SelectionRules())
    assert max(sizes) == 96 * 96 // 16
    assert sum(sizes) < 96 * 96


# The compiler makes an object of the function's class, which PyTorch itself advises against.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiler_takes_the_kernels_as_they_are() -> None:
    """`torch.compile` finds no break in a function that uses them, and its gradients are the same."""
    heads = random_heads((1, 2, 1, 17, 4))

    def loss(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y, forgotten = by_kernels((q, k, v), SelectionRules())
        return y.square().sum() + forgotten.square().sum()

    expected = torch.autograd.grad(loss(*heads), heads)
    found = torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(*heads), heads)
    expect_close(found, expected, 1e-12)


def test_compiler_is_told_the_shapes_of_results() -> None:
    """Shapes, types and strides of both operators, and that they change none of their inputs."""
    q, k, v = (x.detach() for x in random_heads((1, 2, 1, 17, 4)))
    tests = ("test_schema", "test_faketensor")
    for enabled in (True, False):
        choices = (SCALE, True, False, enabled, LIMIT, 16)
        torch.library.opcheck(kernels._forward, (q, k, v, *choices), test_utils=tests)
        y, forgotten, lse, carried = kernels._forward(q, k, v, *choices)
        arguments = (torch.ones_like(y), torch.ones_like(forgotten), q, k, v, y, lse, carried, *choices)
        torch.library.opcheck(kernels._backward, arguments, test_utils=tests)


@pytest.mark.parametrize(
    ("dtype", "width", "expected"),
    [(torch.bfloat16, 128, True), (torch.bfloat16, 129, False), (torch.float32, 96, True), (torch.float64, 65, False)],
    ids=str,
)
def test_wide_heads_are_not_for_the_kernels(dtype: torch.dtype, width: int, expected: bool) -> None:
    """A program's tiles must fit on chip, see test_training_compilation."""
    assert kernels.fits(torch.empty(1, 1, 1, width, dtype=dtype)) == expected
