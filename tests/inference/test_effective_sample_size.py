"""How many cells tell of a coefficient, against each cell's share written out."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm.distributions.expected_information import Zeros, expected_information
from sc_glm.inference.effective_sample_size import effective_sample_size, inverse_square_root
from sc_glm.inference.fitted_model import FittedData

RNG = np.random.default_rng(4)
N = 150


def found(model, X, y, coef_matrix, weights=None):
    fitted = FittedData.of(model.fit(X, y, sample_weight=weights), X, y)
    _, designs = fitted.counts_and_designs(fitted.weights(weights))
    theta = designs.coordinates({part: x.to_numpy() for part, x in fitted.params.items()})
    to_coef = [part.to_coef for part in designs.parts.values()]
    stops = np.cumsum([0, *(matrix.shape[1] for matrix in to_coef)])
    whole = np.zeros((sum(len(m) for m in to_coef), stops[-1]))
    row = 0
    for matrix, start, stop in zip(to_coef, stops, stops[1:], strict=False):
        whole[row : row + len(matrix), start:stop] = matrix
        row += len(matrix)
    tests = np.asarray(coef_matrix, dtype=float) @ whole
    return (
        fitted,
        designs,
        theta,
        tests,
        effective_sample_size(fitted.family, designs, theta, tests),
    )


def of_each_cell(fitted, designs, theta, tests):
    """Sum each cell's own matrices, gene by gene."""
    bases = [part.U for part in designs.parts.values()]
    stops = np.cumsum([0, *(basis.shape[1] for basis in bases)])
    result = np.empty((len(theta), len(tests)))
    for gene, point in enumerate(theta):
        pieces = np.split(point, stops[1:-1])
        predictors = [basis @ own for basis, own in zip(bases, pieces, strict=True)]
        predictors[0] = predictors[0] + designs.offset
        known = expected_information(Zeros.of(fitted.family, predictors), predictors)
        cells = np.zeros((len(designs.weights), stops[-1], stops[-1]))
        for (a, b), values in known.items():
            rows, columns = slice(*stops[a : a + 2]), slice(*stops[b : b + 2])
            block = values[:, None, None] * bases[a][:, :, None] * bases[b][:, None, :]
            cells[:, rows, columns] = block
            cells[:, columns, rows] = np.swapaxes(block, 1, 2)
        cells *= designs.weights[:, None, None]
        inverse = np.linalg.inv(cells.sum(axis=0))
        for number, test in enumerate(tests):
            loadings = inverse_square_root(test @ inverse @ test.T)[0] @ test @ inverse
            own = loadings @ cells @ loadings.T
            assert_allclose(own.sum(axis=0), np.eye(len(test)), atol=1e-7)
            trace = np.einsum("iqq->i", own)
            spread = (trace**2 + np.einsum("iqr,irq->i", own, own)).sum()
            result[gene, number] = len(test) * (len(test) + 1) / spread
    return result


@pytest.mark.parametrize("regressor", [NegBinRegressor, ZINBRegressor])
def test_numbers_are_those_of_each_cells_share(regressor):
    X = np.c_[RNG.normal(size=N), RNG.random(N) < 0.1]
    y = RNG.negative_binomial(2, 0.25, (N, 4)) * (RNG.random((N, 4)) < 0.7)
    weights = RNG.uniform(0.5, 2, N)
    eye = np.eye(5 if regressor is ZINBRegressor else 4)
    for coef_matrix in (eye[:, None], eye[None, 1:3]):
        *problem, cells = found(regressor(), X, y, coef_matrix, weights)
        assert_allclose(cells, of_each_cell(*problem), rtol=1e-6)


@pytest.mark.parametrize("few", [1, 2, 10, 75])
def test_a_level_of_few_cells(few):
    """Of k and m cells that are alike, each has a share of 1 / k² or 1 / m² of 1 / k + 1 / m."""
    X = (np.arange(N) < few)[:, None].astype(float)
    y = np.tile([0, 2, 4, 1, 9], N // 5)
    y[:few] = 3.2  # the mean of the others
    y[few:] = np.where(np.arange(N - few) % 2, 1.2, 5.2)
    *_, cells = found(NegBinRegressor(), X, y, np.eye(3)[1:2, None])
    many = N - few
    expected = (1 / few + 1 / many) ** 2 / (few**-3 + many**-3)
    assert_allclose(cells, expected, rtol=0.02)


def test_similar_cells_may_stand_for_each_other(monkeypatch):
    X = np.c_[RNG.normal(size=900), RNG.random(900) < 0.02]
    y = RNG.negative_binomial(2, 0.25, (900, 3))
    *_, exact = found(NegBinRegressor(), X, y, np.eye(4)[:, None])
    monkeypatch.setattr("sc_glm.inference.effective_sample_size._MAX_ROWS", 200)
    *_, merged = found(NegBinRegressor(), X, y, np.eye(4)[:, None])
    assert_allclose(merged, exact, rtol=0.05)
    assert (merged != exact).any()
