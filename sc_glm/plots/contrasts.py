"""Tests of a contrast, for the displays that draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.utils.sparsefuncs import mean_variance_axis

from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.wald import wald_test

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike


def tests_of_contrast(
    model: Any,
    X: Any,
    y: Any,
    contrast: Any,
    *,
    kind: str,
    groups: ArrayLike | None,
    sample_weight: ArrayLike | None,
) -> pd.DataFrame:
    """Return a table of tests of all genes, with their means.

    Parameters are those of :func:`~sc_glm.inference.wald_test`, and ``base_mean`` is the weighted
    mean of a gene's counts.
    """
    if contrast is None:
        raise TypeError("Give a contrast by its name or after y: contrast='condition[T.b] = 0'.")
    table = wald_test(model, X, y, contrast, kind=kind, groups=groups, sample_weight=sample_weight)
    fitted = FittedData.of(model, X, y)
    counts = fitted.counts.by_gene(slice(None)).astype(float)
    means = mean_variance_axis(counts, axis=1, weights=fitted.weights(sample_weight))[0]
    return table.assign(base_mean=means)


def sides_of(contrast: Any) -> tuple[str, str] | None:
    """Return what a contrast of two levels compares: the reference, and the level.

    None is returned for other contrasts.
    """
    if not (isinstance(contrast, tuple) and len(contrast) == 3):
        return None
    _, level, reference = contrast
    return "the rest" if reference == "rest" else str(reference), str(level)
