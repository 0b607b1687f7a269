"""Time NegBinRegressor and ZINBRegressor against statsmodels, gene by gene, on one thread.

``python doc/benchmarks/against_statsmodels.py`` fits the two simulated sets in ``tests/data`` with
both packages in turn, five times, and prints median seconds, their ratio, and each package's
distance from the maximum of the log-likelihood. Needs the ``benchmark`` extra.
"""

import json
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels.api as sm
from threadpoolctl import threadpool_limits

from sc_glm import NegBinRegressor, ZINBRegressor

DATA = Path(__file__).parents[2] / "tests" / "data"
REPEATS = 5


def fit_ours(arrays):
    """Return the log-likelihood of each gene."""
    X = pd.DataFrame({f"mean__{i}": x for i, x in enumerate(arrays["X"].T)})
    if "Z" not in arrays:
        return NegBinRegressor().fit(X, arrays["Y"]).log_likelihood_
    X = X.assign(**{f"zero_inflation__{i}": z for i, z in enumerate(arrays["Z"].T)})
    return ZINBRegressor().fit(X, arrays["Y"]).log_likelihood_


def fit_statsmodels(arrays):
    """Return the log-likelihood of each gene, a model for each."""
    result = []
    for y in arrays["Y"].T:
        if "Z" in arrays:
            model = sm.ZeroInflatedNegativeBinomialP(y, arrays["X"], exog_infl=arrays["Z"])
            result.append(model.fit(disp=0, maxiter=1000).llf)
        else:
            result.append(sm.NegativeBinomial(y, arrays["X"]).fit(disp=0).llf)
    return np.array(result)


def main():
    """Print one table."""
    warnings.simplefilter("ignore")  # statsmodels warns of genes that did not converge
    best = json.loads((DATA / "bench_loglik.json").read_text())
    rows = []
    for name in ("bench_nb", "bench_zinb"):
        arrays = dict(np.load(DATA / f"{name}.npz"))
        maximum = np.array(best[name]["per_gene_loglik"])
        fits = {"sc_glm": fit_ours, "statsmodels": fit_statsmodels}
        seconds, values = {tool: [] for tool in fits}, {}
        for _ in range(REPEATS):
            for tool, fit in fits.items():
                start = time.perf_counter()
                values[tool] = fit(arrays)
                seconds[tool].append(time.perf_counter() - start)
        ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
        rows += [
            {
                "data": f"{name} {arrays['Y'].shape[0]} x {arrays['Y'].shape[1]}",
                "tool": tool,
                "seconds": statistics.median(seconds[tool]),
                "times faster": statistics.median(ratios) if tool == "sc_glm" else 1.0,
                "log-likelihood": values[tool].sum(),
                "worst gene below maximum": (maximum - values[tool]).max(),
            }
            for tool in fits
        ]
    print(f"one thread, median of {REPEATS} runs in turn")
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda x: f"{x:.4f}"))


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
