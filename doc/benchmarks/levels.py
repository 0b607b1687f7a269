"""Measure what one covariate beside a factor of many levels costs.

``python doc/benchmarks/levels.py`` fits models to simulated counts on one thread, with ``~ donor``
for the mean and with more beside it, and prints the processor time of each fit (formula aside), its
ratio to that of ``~ donor`` at the same number of donors, and the log-likelihood. It takes five
minutes.
"""

import statistics
import time
import warnings
from itertools import product

import numpy as np
import pandas as pd
import torch

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor

GENES = 20
SIZES = ((5_000, 200), (20_000, 200), (20_000, 500))  # cells and donors
FORMULAS = ("~ donor", "~ donor + x", "~ donor + x + type")
MODELS = {
    "one size": (NegBinRegressor, {}),
    "size ~ x": (NegBinRegressor, {"dispersion": "~ x"}),
    "zero inflation ~ 1": (ZINBRegressor, {"zero_inflation": "~ 1"}),
    "size and zero inflation ~ x": (ZINBRegressor, {"dispersion": "~ x", "zero_inflation": "~ x"}),
}
REPEATS = 3


def simulate(n_cells, n_donors):
    """Return covariates and counts."""
    rng = np.random.default_rng(0)
    donor, x = rng.integers(0, n_donors, n_cells), rng.normal(size=n_cells)
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"d{number}" for number in donor]),
            "x": x,
            "type": rng.choice(["a", "b", "c"], n_cells),
            "log_depth": rng.normal(0, 0.4, n_cells),
        }
    )
    log_mean = rng.normal(-0.5, 1, GENES) + rng.normal(0, 0.5, (n_donors, GENES))[donor]
    mean = np.exp(log_mean + np.outer(x, rng.normal(0, 0.3, GENES)))
    size = np.exp(rng.normal(0.5, 0.5, GENES))
    return obs, rng.negative_binomial(size, size / (size + mean))


def measure(transformer, regressor, obs, y):
    """Return the median processor time of a fit, and its log-likelihood."""
    X = transformer.fit_transform(obs)
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        model = regressor().fit(X, y)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), model.log_likelihood_.sum()


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # donors without a count of some gene are part of the cost
    print(f"{GENES} genes, one thread\n")
    for n_cells, n_donors in SIZES:
        obs, y = simulate(n_cells, n_donors)
        for offset, (name, (regressor, parts)) in product((None, "log_depth"), MODELS.items()):
            first = None
            for formula in FORMULAS:
                transformer = FormulaTransformer(formula, **parts, offset=offset)
                seconds, value = measure(transformer, regressor, obs, y)
                first = first or seconds
                print(
                    f"{n_cells} cells, {n_donors} donors, {name}, {formula}, offset {offset}: "
                    f"{seconds:.2f} s, ratio {seconds / first:.1f}, log-likelihood {value:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
