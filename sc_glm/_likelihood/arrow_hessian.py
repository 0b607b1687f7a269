r"""Arrow Hessians of a mean with many levels: diagonal matrices with a border of few columns.

No cell has two levels, so that the second derivatives in two different levels are zero. An arrow
consists of the diagonal :math:`D` of the levels, the border :math:`B` of their products with the
other parameters, and the corner :math:`C` of the other parameters:

.. math::

    \begin{pmatrix} D & B \\ B^\top & C \end{pmatrix} =
    \begin{pmatrix} 1 & 0 \\ B^\top D^{-1} & 1 \end{pmatrix}
    \begin{pmatrix} D & 0 \\ 0 & C - B^\top D^{-1} B \end{pmatrix}
    \begin{pmatrix} 1 & D^{-1} B \\ 0 & 1 \end{pmatrix},

The levels are eliminated at a cost that is linear in their number. What remains is the Schur
complement :math:`C - B^\top D^{-1} B`. Arrows are packed into arrays of shape
(n_genes, n_params, 1 + n_others): the first column is the diagonal, and the others are the border
with the corner below.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.family import Terms
from sc_glm._likelihood.hessian_assembly import HessianAssembly


class Indicators(NamedTuple):
    """Basis vectors of a part that are indicators of levels; they are its first ones.

    Attributes
    ----------
    codes : Tensor of int of shape (n_cells,)
        Number of each cell's level.
    scale : Tensor of shape (n_levels,)
        Factor of each indicator.
    """

    codes: Tensor
    scale: Tensor

    def predictor(self, theta: Tensor, cells: slice) -> Tensor:
        """Return the predictor of some cells at coordinates of shape (n_genes, n_levels)."""
        return (theta * self.scale).index_select(1, self.codes[cells])

    def sums(self, values: Tensor) -> Tensor:
        """Return the products of all indicators with values of shape (n, n_cells)."""
        sums = values.new_zeros(len(values), len(self.scale))
        return sums.index_add_(1, self.codes, values).mul_(self.scale)


class ArrowAssembly(HessianAssembly):
    """Assembly of terms to a value, a gradient and an arrow, for a mean with levels.

    Parameters
    ----------
    designs : sequence of Tensor of shape (n_cells, rank)
        Design of each part. The design of the mean has no indicators of levels.
    weights : Tensor of shape (n_cells,)
        Weights of the cells.
    bounds : sequence of int
        First cell of each tile, and the number of cells.
    indicators : Indicators
        Indicators of the mean's levels.
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
        self._transposed = [design.mT.contiguous() for design in designs]
        self._n_others = sum(len(rows) for rows in self._transposed)

    def begin(self, n_genes: int) -> list[Tensor]:
        """Return the sums before any tile is added: zeros."""
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
        # The first terms of the Hessian are those of the mean with each part.
        for term, rows in zip(terms.hessian, self._transposed, strict=False):
            weighted = term * weights if len(rows) else term
            for row in rows:
                next(totals).index_add_(1, codes, weighted * row[cells])

    def end(self, sums: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return value (genes,), gradient (genes, K) and packed Hessian (genes, K, 1 + others)."""
        *others, of_levels = sums
        value, gradient, corner = super().end(others)
        slope, diagonal, *border = of_levels * self._indicators.scale
        diagonal = diagonal * self._indicators.scale
        arrow = torch.cat(
            [torch.stack([diagonal, *border], 2), torch.nn.functional.pad(corner, (1, 0))], 1
        )
        return value, torch.cat([slope, gradient], 1), arrow


def is_flat(curvature: Tensor, floor: Tensor, noise: Tensor) -> Tensor:
    """Return which curvatures are zero up to rounding errors.

    Parameters
    ----------
    curvature : Tensor of shape (n_genes, k)
        Curvatures, which are positive at a maximum.
    floor : Tensor of shape (n_genes,)
        Curvature below which a function counts as flat.
    noise : Tensor of shape (n_genes,)
        Rounding error. A negative curvature counts as flat if it is not larger, in absolute value,
        than this or `floor`.
    """
    return (curvature < floor[:, None]) & (curvature > -torch.maximum(floor, noise)[:, None])


def is_arrow(hessian: Tensor) -> bool:
    """Return whether Hessians of shape (n_genes, n_params, ...) are packed arrows."""
    return hessian.shape[1] != hessian.shape[2]


def unpacked(hessian: Tensor) -> Tensor:
    """Return Hessians, which may be packed arrows, as (n_genes, n_params, n_params)."""
    if not is_arrow(hessian):
        return hessian
    diagonal, border, corner = _parts(hessian)
    upper = torch.cat([torch.diag_embed(diagonal), border], 2)
    return torch.cat([upper, torch.cat([border.mT, corner], 2)], 1)


def eigenvalues_exceed(information: Tensor, least: float) -> Tensor:
    """Return which matrices, (n_genes, n_params, ...), have all eigenvalues above a number.

    Eigenvalues of an arrow are positive if its diagonal and its Schur complement are (Haynsworth
    1968, "Determination of the inertia of a partitioned Hermitian matrix").
    """
    if not is_arrow(information):
        return rowwise.eigh(information)[0][:, 0] > least
    lowered = information.clone()
    diagonal, _, corner = _parts(lowered)
    diagonal -= least
    corner.diagonal(dim1=1, dim2=2).sub_(least)
    zeros = information.new_zeros(len(information))
    complement = Elimination.of(lowered, zeros, zeros).schur_complement
    return (diagonal > 0).all(1) & (rowwise.eigh(complement)[0] > 0).all(1)


def _parts(arrow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the diagonal, the border and the corner."""
    n_levels = arrow.shape[1] - arrow.shape[2] + 1
    return arrow[:, :n_levels, 0], arrow[:, :n_levels, 1:], arrow[:, n_levels:, 1:]


class Elimination(NamedTuple):
    """Block elimination of the levels of arrows.

    Attributes
    ----------
    diagonal : Tensor of shape (n_genes, n_levels)
        Diagonal of the levels.
    ratio : Tensor of shape (n_genes, n_levels, n_others)
        Border divided by the diagonal. A level at its maximum decreases by this number per unit of
        another parameter.
    schur_complement : Tensor of shape (n_genes, n_others, n_others)
        Corner after the elimination.
    scale : Tensor of shape (n_genes,)
        Largest entry of the whole diagonal, to which rounding errors are in proportion.
    """

    diagonal: Tensor
    ratio: Tensor
    schur_complement: Tensor
    scale: Tensor

    @classmethod
    def of(cls, arrow: Tensor, floor: Tensor, noise: Tensor) -> "Elimination":
        """Eliminate the levels of arrows.

        Flat levels get a diagonal of `floor` and a border of zeros, as their border consists of
        rounding errors. Other negative curvatures are kept.

        Parameters
        ----------
        arrow : Tensor of shape (n_genes, n_params, 1 + n_others)
            Packed arrows.
        floor, noise : Tensor of shape (n_genes,)
            Limits of flat curvatures, see :func:`is_flat`.
        """
        diagonal, border, corner = _parts(arrow)
        scale = torch.cat([diagonal, corner.diagonal(dim1=1, dim2=2)], 1).abs().amax(1)
        least = torch.maximum(floor, torch.finfo(scale.dtype).eps * scale)
        flat = is_flat(diagonal, least, noise)
        border = torch.where(flat[:, :, None], 0.0, border)
        diagonal = torch.where(flat, least[:, None], diagonal)
        ratio = border / diagonal[:, :, None]
        product = torch.stack(
            [(ratio * column[:, :, None]).sum(1) for column in border.unbind(2)], 2
        )
        return cls(diagonal, ratio, corner - product, scale)

    def reduce(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the levels, and the reduced gradient of the other parameters."""
        of_levels, others = self._split(gradient)
        return torch.cat([of_levels, others - (self.ratio * of_levels[:, :, None]).sum(1)], 1)

    def back_substitute(self, step: Tensor) -> Tensor:
        """Return the step of all parameters by back substitution.

        Of the levels, `step` has the part that does not depend on the other parameters.
        """
        of_levels, others = self._split(step)
        return torch.cat([of_levels - (self.ratio * others[:, None]).sum(2), others], 1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n_levels = self.diagonal.shape[1]
        return x[:, :n_levels], x[:, n_levels:]
