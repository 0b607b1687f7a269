"""Sizes that a user gives: checked, and in the order of the genes."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sc_glm._contract.validation import quoted, similar_names
from sc_glm._design.design import FloatArray
from sc_glm._likelihood.family import DISPERSION, LARGEST_LOG_SIZE


def given_log_sizes(
    size: Any, genes: NDArray[np.object_], designs: dict[str, FloatArray]
) -> FloatArray | None:
    """Return the logarithms of given sizes, one per gene; None if they are to be estimated.

    An infinite size becomes the largest one of the likelihood, which is that of a Poisson
    distribution.

    Raises
    ------
    ValueError
        If the sizes are not positive numbers, one for each gene. If the dispersion has a formula.
    """
    if size is None:
        return None
    design = designs[DISPERSION]
    if design.shape[1] != 1 or (design != 1).any():
        raise ValueError(
            f"size={_short(size)} gives one size for each gene, but the dispersion has a formula "
            "of its own. Leave one of both out: size=None, or dispersion=None in the formulas."
        )
    values = _in_order_of_genes(size, genes)
    wrong = ~(values > 0)  # NaN as well
    if wrong.any():
        gene = int(wrong.argmax())
        raise ValueError(
            f"A size is a positive number, but that of gene {quoted(genes[gene])} is "
            f"{values[gene]}; {int(wrong.sum())} of {len(values)} genes are affected."
        )
    return np.clip(np.log(values), -LARGEST_LOG_SIZE, LARGEST_LOG_SIZE)


def _in_order_of_genes(size: Any, genes: NDArray[np.object_]) -> FloatArray:
    """Return sizes as numbers, one for each gene."""
    if isinstance(size, pd.Series):
        if not size.index.is_unique:
            repeated = size.index[size.index.duplicated()][0]
            raise ValueError(f"size has more than one value for the gene {quoted(repeated)}.")
        missing = [gene for gene in genes if gene not in size.index]
        if missing:
            similar = similar_names(str(missing[0]), size.index, 3)
            hint = f" Similar: {similar}." if similar else ""
            raise ValueError(
                f"size is a Series without {len(missing)} of {len(genes)} genes, such as "
                f"{quoted(missing[0])}.{hint} Its index names the genes; an array has them in "
                "the order of y."
            )
        size = size.loc[list(genes)]
    try:
        values = np.asarray(size, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"size={_short(size)}: sizes are numbers.") from error
    if values.ndim and values.shape != (len(genes),):
        raise ValueError(
            f"size has the shape {values.shape}, but there are {len(genes)} genes: give one number "
            "for all, or one for each."
        )
    return np.broadcast_to(values, (len(genes),)).copy()


def _short(value: Any) -> str:
    return textwrap.shorten(repr(value), 60, placeholder=" ...")
