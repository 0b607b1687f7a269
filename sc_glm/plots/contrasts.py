"""Tests of a contrast, for the displays that draw them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sc_glm.inference.contrast_tests import differential_expression
from sc_glm.inference.contrasts import REST

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
    """Return the table of :func:`~sc_glm.inference.differential_expression` for one contrast.

    Raises
    ------
    ValueError
        If there are several contrasts, in a dict.
    """
    if isinstance(contrast, Mapping):
        raise ValueError(  # noqa: TRY004 - a dict is a valid contrast elsewhere
            f"A plot shows one contrast, not a dict of {len(contrast)}: give one of its values. "
            "from_table takes the rows of one contrast."
        )
    return differential_expression(
        model, X, y, contrast, kind=kind, groups=groups, sample_weight=sample_weight
    )


def sides_of(contrast: Any) -> tuple[str, str] | None:
    """Return what a contrast of two levels compares: the reference, and the level.

    None is returned for other contrasts. Levels that are numbers have the name of their covariate.
    """
    if not (isinstance(contrast, tuple) and len(contrast) == 3 and isinstance(contrast[0], str)):
        return None
    factor, level, reference = contrast
    names = (name if isinstance(name, str) else f"{factor} {name}" for name in (reference, level))
    low, high = names
    return "the rest" if low == REST else low, high
