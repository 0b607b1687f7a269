import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm.distributions import NB, ZINB
from sc_glm.plots import RootogramDisplay

pytestmark = pytest.mark.usefixtures("pyplot")


@pytest.fixture(scope="module")
def data():
    """Three genes: few different counts, many, and large ones with an outlier."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1))
    mu = np.exp(0.3 * x + np.log([1.5, 20.0, 300.0]))
    y = NB(mu, r=1.5).rvs(random_state=rng)
    y[7, 2] = 1_000_000
    return x, y


@pytest.fixture(scope="module")
def model(data):
    return NegBinRegressor().fit(*data)


def pieces(display):
    starts, stops = display.edges[:-1], display.edges[1:]
    return zip(starts, stops, display.observed, display.expected, strict=True)


@pytest.mark.parametrize("gene", [0, 1, 2])
def test_frequencies_are_those_of_counts_and_sums_of_probabilities(model, data, gene):
    x, y = data
    display = RootogramDisplay.from_estimator(model, x, y, genes=f"y{gene}")
    dist = model.predict_dist(x)[:, gene]
    assert display.edges[0] == 0
    assert display.edges[-1] == np.inf
    assert np.all(np.diff(display.edges[:-1]) >= 1)
    for start, stop, observed, expected in pieces(display):
        inside = (y[:, gene] >= start) & (y[:, gene] < stop)
        assert observed == inside.sum()
        probability = dist.sf(start - 1) - (dist.sf(stop - 1) if stop < np.inf else 0)
        assert_allclose(expected, probability.sum(), rtol=1e-9, atol=1e-9)
    assert_allclose([display.observed.sum(), display.expected.sum()], len(y))


def test_bins_are_single_counts_or_widen(model, data):
    few, _, many = (
        RootogramDisplay.from_estimator(model, *data, genes=f"y{gene}") for gene in range(3)
    )
    assert set(np.diff(few.edges[:-1])) == {1}
    assert few.ax_.get_xlabel() == "count"
    widths = np.diff(many.edges[:-1])
    assert len(widths) < 40
    assert widths[0] == 1
    assert np.all(np.diff(widths) >= 0)
    assert many.ax_.get_xlabel() == "smallest count of the bin"
    assert many.ax_.get_xticklabels()[-1].get_text() == f"≥ {many.edges[-2]:.0f}"
    # The outlier is in the last bin, and does not make the others wider.
    assert many.edges[-2] < 10_000
    assert many.observed[-1] >= 1


def test_bars_hang_from_the_expected_frequencies(model, data):
    display = RootogramDisplay.from_estimator(model, *data, genes="y0")
    tops = [bar.get_y() + bar.get_height() for bar in display.bars_]
    assert_allclose(tops, np.sqrt(display.expected))
    assert_allclose(display.line_.get_ydata(), np.sqrt(display.expected))
    heights = [bar.get_height() for bar in display.bars_]
    assert_allclose(heights, np.sqrt(display.observed))
    # A bar ends within the band where the observed frequency is within its interval.
    for bar, band, observed, lower, upper in zip(
        display.bars_, display.band_, display.observed, display.lower, display.upper, strict=True
    ):
        below, above = band.get_y() - 1e-9, band.get_y() + band.get_height() + 1e-9
        assert (below <= bar.get_y() <= above) == (lower <= observed <= upper)
    low, high = display.ax_.get_ylim()
    ends = [*display.bars_, *display.band_]
    assert low < min(bar.get_y() for bar in ends)
    assert high > max(tops)


def test_the_band_holds_what_the_model_draws(model, data):
    x, _ = data
    dist = model.predict_dist(x)[:, 0]
    display = RootogramDisplay.from_estimator(model, *data, genes="y0")
    drawn = np.array([dist.rvs(random_state=i) for i in range(400)])
    for start, stop, lower, upper in zip(
        display.edges[:-1], display.edges[1:], display.lower, display.upper, strict=True
    ):
        frequency = ((drawn >= start) & (drawn < stop)).sum(axis=1)
        share = np.mean((frequency >= lower) & (frequency <= upper))
        # Of whole numbers an interval holds at least so many; here about 50 are likely.
        assert share > 0.92
        if frequency.mean() > 20:
            assert share < 0.985


def test_a_lack_of_zero_inflation_is_seen():
    rng = np.random.default_rng(1)
    y = ZINB(np.full(2000, 6.0), r=4.0, pi=0.3).rvs(random_state=rng)
    X = rng.normal(size=(2000, 1))
    display = RootogramDisplay.from_estimator(NegBinRegressor().fit(X, y), X, y)
    assert display.observed[0] > display.upper[0]
    assert display.observed[1] < display.lower[1]
    assert display.bars_[0].get_y() < 0 < display.bars_[1].get_y()


def test_frequencies_of_several_genes_add_up(model, data):
    both = RootogramDisplay.from_estimator(model, *data, genes=["y1", "y0"])
    single = [RootogramDisplay.from_estimator(model, *data, genes=gene) for gene in ("y0", "y1")]
    assert both.name == "2 genes"
    for i in range(10):  # of single counts in all three
        assert both.edges[i + 1] == i + 1
        assert both.observed[i] == sum(display.observed[i] for display in single)
        assert_allclose(both.expected[i], sum(display.expected[i] for display in single))


def test_counts_that_are_not_integers_are_rounded():
    X, y = np.zeros((10, 1)), np.array([0.2, 0.0, 1.4, 2.7, 1.0, 0.6, 1, 1, 2, 3])
    display = RootogramDisplay.from_estimator(NegBinRegressor().fit(X, y), X, y)
    assert_array_equal(display.observed, [2, 5, 1, 2, 0])


def test_a_gene_without_counts():
    X, y = np.zeros((6, 1)), np.zeros(6)
    with pytest.warns(ConvergenceWarning, match="all zero"):
        model = NegBinRegressor().fit(X, y)
    display = RootogramDisplay.from_estimator(model, X, y)
    assert_array_equal(display.edges, [0, 1, np.inf])
    assert_array_equal(display.observed, [6, 0])
    assert_array_equal(display.lower, [6, 0])
    assert_array_equal(display.upper, [6, 0])


@pytest.mark.parametrize("regressor", [NegBinRegressor, ZINBRegressor])
def test_genes_of_any_mean_are_added_up(regressor):
    """At a mean of 900 without overdispersion, single small counts have no probability."""
    rng = np.random.default_rng(2)
    X, y = np.zeros((300, 1)), rng.poisson([0.02, 4.0, 60.0, 900.0], size=(300, 4))
    y[:, 2] *= rng.random(300) < 0.7
    model = regressor().fit(X, y)
    display = RootogramDisplay.from_estimator(model, X, y)
    cdf = model.predict_dist(X).cdf
    below = [cdf(stop - 1).sum() for stop in display.edges[1:]]
    assert_allclose(display.expected, np.diff(below, prepend=0.0), atol=1e-8)
    widths = np.diff(display.edges[:-1])
    assert widths[0] == 1
    assert widths[-1] > 100
