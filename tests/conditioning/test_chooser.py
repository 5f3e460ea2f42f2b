from __future__ import annotations

import numpy as np
import pytest

from llmzip.conditioning.chooser import Chooser, mean_embedding
from llmzip.errors import ConditionerInvalidError
from llmzip.exact.matrix import QuantisedMatrix, quantise_matrix


def test_the_mean_is_that_of_the_embeddings() -> None:
    """Each token as often as it stands there."""
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    matrix = QuantisedMatrix(*quantise_matrix(rows), None, 127)
    tokens = np.array([3, 3, 8, 0], dtype=np.int32)
    expected = (matrix.q[tokens] * matrix.scale[tokens][:, None].astype(np.float64)).mean(axis=0)
    assert np.allclose(mean_embedding(tokens, matrix), expected, rtol=0, atol=1e-12)


def test_estimates_are_linear() -> None:
    """Gains by the first columns, weights by the others, rounded to even and held within the radius."""
    gains = np.array([[1, 2], [0, 1], [0.5, 0]], np.float32)
    analysis = np.array([[1, 0], [0, 9], [0.5, 0.5]], np.float32)
    chooser = Chooser(gains, analysis)
    mean = np.array([2.0, 3.0])
    assert chooser.estimate(mean).tolist() == [2.5, 7.0]
    assert chooser.weights(mean, 15) == (2, 15)
    assert chooser.weights(-mean, 4) == (-2, -4)


def test_a_chooser_of_another_shape_is_refused() -> None:
    """For another width, other choices, other weights."""
    chooser = Chooser(np.zeros((5, 2), np.float32), np.zeros((5, 3), np.float32))
    chooser.check(4, 3, 3)
    for shape in ((5, 3, 3), (4, 2, 3), (4, 3, 0)):
        with pytest.raises(ConditionerInvalidError, match="chooser: expected"):
            chooser.check(*shape)
