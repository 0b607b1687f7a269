r"""Hessians of a mean with many levels: arrows, diagonal but for a border of few columns.

No cell has two levels, so that the second derivatives in two of them are zero. With the diagonal
:math:`D` of the levels, the border :math:`B` of their products with the other parameters, and the
corner :math:`C` of these among themselves, an arrow is

.. math::

    \begin{pmatrix} D & B \\ B^\top & C \end{pmatrix} =
    \begin{pmatrix} 1 & 0 \\ B^\top D^{-1} & 1 \end{pmatrix}
    \begin{pmatrix} D & 0 \\ 0 & C - B^\top D^{-1} B \end{pmatrix}
    \begin{pmatrix} 1 & D^{-1} B \\ 0 & 1 \end{pmatrix},

so that the levels are eliminated at a cost that is linear in their number. Arrows are kept packed,
(n_genes, n_params, 1 + n_others): the diagonal, and beside it the border with the corner below.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.family import Terms
from sc_glm._likelihood.hessian_assembly import HessianAssembly


class Indicators(NamedTuple):
    """The first basis vectors of a part, of which each cell meets one.

    ``codes`` (n_cells,) are the numbers of the cells' levels, and ``scale`` (n_levels,) is what
    each indicator is multiplied by.
    """

    codes: Tensor
    scale: Tensor

    def predictor(self, theta: Tensor, cells: slice) -> Tensor:
        """Return what coordinates, (n_genes, n_levels), add to the predictor in some cells."""
        return (theta * self.scale).index_select(1, self.codes[cells])

    def sums(self, values: Tensor) -> Tensor:
        """Return the products of all indicators with values of the cells, (n, n_cells)."""
        sums = values.new_zeros(len(values), len(self.scale))
        return sums.index_add_(1, self.codes, values).mul_(self.scale)


class ArrowAssembly(HessianAssembly):
    """How terms become a value, a gradient and an arrow, where the mean has levels.

    Parameters
    ----------
    designs, weights, bounds
        As for :class:`~sc_glm._likelihood.hessian_assembly.HessianAssembly`; the first is what the
        mean has beside its levels.
    indicators : Indicators
        Of the levels.
    """

    def __init__(
        self,
        designs: Sequence[Tensor],
        weights: Tensor,
        bounds: Sequence[int],
        indicators: Indicators,
    ) -> None:
        super().__init__(designs, weights, bounds)
        self._indicators = indicators
        self._across = [design.mT.contiguous() for design in designs]
        self._n_others = sum(len(rows) for rows in self._across)

    def begin(self, n_genes: int) -> list[Tensor]:
        """Return sums of nothing."""
        n_levels = len(self._indicators.scale)
        of_levels = self._weights.new_zeros(2 + self._n_others, n_genes, n_levels)
        return [*super().begin(n_genes), of_levels]

    def add(self, sums: Sequence[Tensor], genes: slice, tile: int, terms: Terms) -> None:
        """Add the terms of some genes in a tile to the sums."""
        *others, of_levels = sums
        super().add(others, genes, tile, terms)
        cells = self._tiles[tile]
        codes, weights = self._indicators.codes[cells], self._weights[cells, 0]
        totals = iter(of_levels[:, genes])
        for term in (terms.score[0], terms.hessian[0]):
            next(totals).index_add_(1, codes, term * weights)
        # The mean's second derivatives, with each part, are the first ones.
        for term, rows in zip(terms.hessian, self._across, strict=False):
            weighted = term * weights if len(rows) else term
            for row in rows:
                next(totals).index_add_(1, codes, weighted * row[cells])

    def end(self, sums: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return value (genes,), gradient (genes, K) and Hessian, packed."""
        *others, of_levels = sums
        value, gradient, corner = super().end(others)
        slope, diagonal, *border = of_levels * self._indicators.scale
        diagonal = diagonal * self._indicators.scale
        arrow = torch.cat(
            [torch.stack([diagonal, *border], 2), torch.nn.functional.pad(corner, (1, 0))], 1
        )
        return value, torch.cat([slope, gradient], 1), arrow


def is_flat(curvature: Tensor, floor: Tensor, noise: Tensor) -> Tensor:
    """Tell which curvatures, (n_genes, k), are below a floor and not clearly negative.

    ``floor`` and ``noise`` are (n_genes,). Rounding may make a curvature of zero negative by as
    much as the larger of them.
    """
    return (curvature < floor[:, None]) & (curvature > -torch.maximum(floor, noise)[:, None])


def is_arrow(hessian: Tensor) -> bool:
    """Tell whether Hessians, (n_genes, n_params, ...), are packed arrows."""
    return hessian.shape[1] != hessian.shape[2]


def unpacked(hessian: Tensor) -> Tensor:
    """Return Hessians as (n_genes, n_params, n_params), whether they are arrows or not."""
    if not is_arrow(hessian):
        return hessian
    diagonal, border, corner = _parts(hessian)
    upper = torch.cat([torch.diag_embed(diagonal), border], 2)
    return torch.cat([upper, torch.cat([border.mT, corner], 2)], 1)


def eigenvalues_exceed(information: Tensor, least: float) -> Tensor:
    """Tell which matrices, (n_genes, n_params, ...), have all eigenvalues above a number.

    Of arrows that is so if their diagonals are, and what is left without the levels (Haynsworth
    1968, "Determination of the inertia of a partitioned Hermitian matrix").
    """
    if not is_arrow(information):
        return rowwise.eigh(information)[0][:, 0] > least
    lowered = information.clone()
    diagonal, _, corner = _parts(lowered)
    diagonal -= least
    corner.diagonal(dim1=1, dim2=2).sub_(least)
    nothing = information.new_zeros(len(information))
    rest = Elimination.of(lowered, nothing, nothing).schur_complement
    return (diagonal > 0).all(1) & (rowwise.eigh(rest)[0] > 0).all(1)


def _parts(arrow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the diagonal, the border and the corner."""
    n_levels = arrow.shape[1] - arrow.shape[2] + 1
    return arrow[:, :n_levels, 0], arrow[:, :n_levels, 1:], arrow[:, n_levels:, 1:]


class Elimination(NamedTuple):
    """Arrows without their levels, and the way back.

    Attributes
    ----------
    diagonal : Tensor of shape (n_genes, n_levels)
    ratio : Tensor of shape (n_genes, n_levels, n_others)
        By how much each level falls when another parameter rises, for it to stay at its maximum.
    rest : Tensor of shape (n_genes, n_others, n_others)
        What is left of the corner.
    scale : Tensor of shape (n_genes,)
        Largest entry of the diagonals, to which rounding is in proportion.
    """

    diagonal: Tensor
    ratio: Tensor
    schur_complement: Tensor
    scale: Tensor

    @classmethod
    def of(cls, arrow: Tensor, floor: Tensor, noise: Tensor) -> "Elimination":
        """Eliminate the levels; where flat, their diagonal is raised to ``floor``, (n_genes,).

        A level that is flat goes by itself: what its border says is rounding, or beyond a ceiling.
        Negative curvature beyond ``noise``, (n_genes,), stays as it is.
        """
        diagonal, border, corner = _parts(arrow)
        scale = torch.cat([diagonal, corner.diagonal(dim1=1, dim2=2)], 1).abs().amax(1)
        least = torch.maximum(floor, torch.finfo(scale.dtype).eps * scale)
        flat = is_flat(diagonal, least, noise)
        border = torch.where(flat[:, :, None], 0.0, border)
        diagonal = torch.where(flat, least[:, None], diagonal)
        ratio = border / diagonal[:, :, None]
        taken = torch.stack([(ratio * column[:, :, None]).sum(1) for column in border.unbind(2)], 2)
        return cls(diagonal, ratio, corner - taken, scale)

    def reduce(self, gradient: Tensor) -> Tensor:
        """Return the slopes of levels, and of the others when levels follow them."""
        of_levels, others = self._split(gradient)
        return torch.cat([of_levels, others - (self.ratio * of_levels[:, :, None]).sum(1)], 1)

    def back_substitute(self, step: Tensor) -> Tensor:
        """Return the whole step, given that of the others and what levels do beside following."""
        of_levels, others = self._split(step)
        return torch.cat([of_levels - (self.ratio * others[:, None]).sum(2), others], 1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n_levels = self.diagonal.shape[1]
        return x[:, :n_levels], x[:, n_levels:]
