"""The cells on which a model is evaluated, and their information relative to the fit's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_glm._counts.equal_rows import first_rows, group_rows_ignoring_offset
from sc_glm._counts.offset_nodes import offset_nodes
from sc_glm._design.design import PartDesign
from sc_glm.distributions.expected_information import (
    Zeros,
    expected_information,
    information_in_bases,
)
from sc_glm.inference.log_likelihood import matches_fit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sc_glm.inference.fitted_model import FittedData

    FloatArray = NDArray[np.float64]

_MAX_SHARE_OF_ROWS = 0.5  # of the cells, above which their own rows are taken


@dataclass(frozen=True)
class EvaluatedCells:
    """Cells of positive weight: those of the fit, or new ones.

    Attributes
    ----------
    data : FittedData
    weights : ndarray of shape (n_cells,)
    """

    data: FittedData
    weights: FloatArray

    @classmethod
    def of(cls, data: FittedData, sample_weight: ArrayLike | None) -> EvaluatedCells:
        """Leave out the cells of weight zero."""
        return cls(*data.with_positive_weight(sample_weight))

    @cached_property
    def bases(self) -> list[FloatArray]:
        """An orthonormal basis of each part's design in these cells, at :attr:`rows`."""
        designs = self.data.designs.values()
        return self._of_estimated_parts(
            [PartDesign.of(design, self.weights).U[self.rows.cells] for design in designs]
        )

    @cached_property
    def typical_cells(self) -> tuple[FittedData, FloatArray]:
        """A few cells that represent the cells of the fit, and their weights."""
        return self.data.typical_cells

    @cached_property
    def designs_of_fit(self) -> list[PartDesign]:
        """Designs of the parts in the typical cells of the fit."""
        fit, weights = self.typical_cells
        return [PartDesign.of(design, weights) for design in fit.designs.values()]

    @cached_property
    def in_bases_of_fit(self) -> list[FloatArray]:
        """Designs of :attr:`rows` in the coordinates of ``designs_of_fit``, rows x rank."""
        designs = self.rows.designs.values()
        return self._of_estimated_parts(
            [x @ part.to_coef for x, part in zip(designs, self.designs_of_fit, strict=True)]
        )

    def _of_estimated_parts(self, bases: list[FloatArray]) -> list[FloatArray]:
        """Return the bases of the parts; a part whose values were given has none."""
        if not self.data.has_given_size:
            return bases
        fixed = [part in self.data.fixed_parts for part in self.data.designs]
        return [
            basis[:, :0] if is_fixed else basis
            for basis, is_fixed in zip(bases, fixed, strict=True)
        ]

    def as_counts(self, sums: FloatArray) -> NDArray[Any]:
        """Return sums of weights, as integers if the weights are integers."""
        are_integers = (self.weights == np.rint(self.weights)).all()
        return np.rint(sums).astype(np.int64) if are_integers else sums

    def are_of_fit(self, log_likelihood: FloatArray, genes: slice) -> NDArray[np.bool_]:
        """Return for which genes these are the cells of the fit, with its weights."""
        return matches_fit(self.data, log_likelihood, genes)

    @cached_property
    def rows(self) -> EvaluatedRows:
        """Rows that stand for these cells in sums of smooth functions of the predictors."""
        return EvaluatedRows.of(self.data.designs, self.data.offset, self.weights)

    def information_of_fit(self, genes: slice) -> FloatArray:
        """Return the expected information of the fit, in the coordinates of its bases."""
        fit, weights = self.typical_cells
        predictors = fit.predictors(genes)
        zeros = Zeros.of(fit.family, predictors)
        bases = self._of_estimated_parts([part.U for part in self.designs_of_fit])
        return weighted_information(zeros, predictors, weights, bases)


class EvaluatedRows(NamedTuple):
    """Rows of the designs that stand for cells in sums of smooth functions of the predictors.

    If cells of equal designs differ in the offset alone, a few offsets stand for theirs.

    Attributes
    ----------
    designs : dict of str to ndarray of shape (n_rows, n_columns)
    offset, weights : ndarray of shape (n_rows,)
    cells : ndarray of int of shape (n_rows,)
        A cell with the designs of each row.
    """

    designs: dict[str, FloatArray]
    offset: FloatArray
    weights: FloatArray
    cells: NDArray[np.intp]

    @classmethod
    def of(
        cls, designs: dict[str, FloatArray], offset: FloatArray, weights: FloatArray
    ) -> EvaluatedRows:
        """Choose the rows: those of all cells, unless these are many more than are needed."""
        everything = cls(designs, offset, weights, np.arange(len(offset)))
        groups = group_rows_ignoring_offset(np.hstack(list(designs.values())), offset)
        if groups is None:
            return everything
        nodes = offset_nodes(groups, offset, weights)
        if len(nodes.offset) > _MAX_SHARE_OF_ROWS * len(offset):
            return everything
        cells = first_rows(groups)[nodes.groups]
        of_rows = {part: design[cells] for part, design in designs.items()}
        return cls(of_rows, nodes.offset, nodes.weights, cells)


def weighted_information(
    zeros: Zeros, predictors: list[FloatArray], weights: FloatArray, bases: list[FloatArray]
) -> FloatArray:
    """Return the expected information of weighted rows, in the coordinates of bases."""
    entries = expected_information(zeros, predictors)
    weighted = {pair: weights[:, None] * values for pair, values in entries.items()}
    return information_in_bases(weighted, bases)
