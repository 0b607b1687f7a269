"""Fits of simulated genes, and what their tests and intervals come to."""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.inference import wald_test

LEVELS = (0.05, 0.01, 0.001)


def fit(data, mean, *, regressor=NegBinRegressor, sample_weight=None, **parts):
    """Fit genes by formulas; the logarithm of the depth is the offset."""
    model = make_pipeline(FormulaTransformer(mean, offset="log_depth", **parts), regressor())
    weights = {f"{model.steps[-1][0]}__sample_weight": sample_weight}
    with warnings.catch_warnings():
        # Reasons tell of the same genes.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(data.obs, data.counts, **weights)


def wald(model, data, constraint, kind="observed", **options):
    """Test a constraint; clusters are donors."""
    groups = data.obs["donor"] if kind == "cluster" else None
    return wald_test(model, data.obs, data.counts, constraint, kind=kind, groups=groups, **options)


@dataclass(frozen=True)
class Share:
    """How often something happened, and among how many."""

    of: float
    among: int

    @property
    def error(self):
        """Binomial standard error."""
        return np.sqrt(self.of * (1 - self.of) / self.among) if self.among else np.nan

    def __str__(self):
        return f"{100 * self.of:.2f} ({100 * self.error:.2f})"


def share(happened):
    """Return the share of what is true."""
    return Share(float(np.mean(happened)) if len(happened) else np.nan, len(happened))


def percent(x):
    """Write a share in per cent."""
    return f"{100 * x:.1f}"


def overall(tests):
    """Make a table of how often a true hypothesis is rejected, one row for each test.

    Parameters
    ----------
    tests : dict of str to DataFrame
        What tests return, under their names.
    """
    return pd.DataFrame(
        [{"test": name, **rejections(result["p_value"])} for name, result in tests.items()]
    )


def by_class(data, tests):
    """Make a table of how often it is rejected at 5 %, one row for each class of genes."""
    return pd.DataFrame(
        {
            "positive cells": name,
            "genes": int(genes.sum()),
            **{test: rejected(result["p_value"][genes]) for test, result in tests.items()},
        }
        for name, genes in data.classes()
    )


def rejected(p_value, level=0.05):
    """Return the share of p-values that are below a level."""
    return share(p_value.dropna() < level)


def rejections(p_value):
    """Return a row: p-values that there are, how far from uniform, and how many are small."""
    p = p_value.dropna().to_numpy()
    distance = stats.kstest(p, "uniform").statistic if len(p) else np.nan
    return {
        "no p": percent(p_value.isna().mean()),
        "distance": f"{distance:.3f}",
        **{f"below {level:g}": rejected(p_value, level) for level in LEVELS},
    }


def reasons(tests):
    """Say in a line for each test why genes have no p-value."""
    for name, result in tests.items():
        why = result["reason"][result["reason"] != ""].value_counts()
        if len(why):
            yield f"No p-value, {name}: " + ", ".join(f"{word} {n}" for word, n in why.items())


def covered(intervals, truth):
    """Return whether intervals hold the truth; NaN where there is no interval."""
    inside = (intervals["lower"] <= truth) & (truth <= intervals["upper"])
    return inside.astype(float).where(intervals["reason"] == "")
