"""Sums over cells of the terms of a likelihood, times the designs of the parts they belong to.

Terms that meet the same columns are stacked, so that one matrix product serves all: the scores of
parts with one design, and their Hessians, for which the products of columns are symmetric. A part
whose predictor is the same in all cells meets no columns at all.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.family import Terms, pairs

# Entries of a tile below which terms that meet few columns are copied for one product: above, that
# costs more than it saves.
_FEW_ENTRIES = 16_384
_KEPT_ENTRIES = 16_000_000  # of products of designs, up to which they are formed only once

_Met = tuple[int, ...]  # the designs that a term meets: none, one, or two


class HessianAssembly:
    """How the terms of tiles become a value, a gradient and a Hessian.

    Parameters
    ----------
    designs : sequence of Tensor of shape (n_cells, rank)
        One per part.
    weights : Tensor of shape (n_cells,)
    bounds : sequence of int
        Where the tiles begin, and where the last ends.

    Attributes
    ----------
    distinct : list of Tensor of shape (n_cells, rank)
        Designs that differ from each other, and between cells.
    number : list of int or None
        Which of these each part has; None where it is the same in all cells.
    """

    def __init__(self, designs: Sequence[Tensor], weights: Tensor, bounds: Sequence[int]) -> None:
        self.distinct: list[Tensor] = []
        self.number = [self._number_of(design) for design in designs]
        self._weights = weights[:, None]
        self._tiles = [slice(*ends) for ends in pairwise(bounds)]
        of_parts: list[_Met] = [() if number is None else (number,) for number in self.number]
        of_pairs = [tuple(sorted(of_parts[a] + of_parts[b])) for a, b in pairs(len(designs))]
        of_terms: list[_Met] = [(), *of_parts, *of_pairs]
        # Terms, by number, in the order of value, scores and Hessian.
        self._stacks = {
            met: [term for term, own in enumerate(of_terms) if own == met] for met in of_terms
        }
        self._widths = [rowwise.padded(self._n_columns(met)) for met in self._stacks]
        self._are_kept = len(weights) * sum(self._widths) <= _KEPT_ENTRIES
        self._kept: dict[int, list[Tensor]] = {}
        self._find_places(designs)

    def _number_of(self, design: Tensor) -> int | None:
        if is_constant(design):
            return None
        for number, other in enumerate(self.distinct):
            if torch.equal(design, other):
                return number
        self.distinct.append(design)
        return len(self.distinct) - 1

    def _n_columns(self, met: _Met) -> int:
        ranks = [self.distinct[number].shape[1] for number in met]
        if _is_symmetric(met):
            return ranks[0] * (ranks[0] + 1) // 2
        return math.prod(ranks)

    def _find_places(self, designs: Sequence[Tensor]) -> None:
        """Find where among all sums the gradient and the Hessian have their entries.

        What is the same in all cells is a factor of a sum.
        """
        start, position = {}, 0
        for terms, width in zip(self._stacks.values(), self._widths, strict=True):
            for term in terms:
                start[term] = position
                position += width
        numbers = self.number
        places, factors = [], []
        for design, number in zip(designs, numbers, strict=True):
            own = torch.arange(design.shape[1], device=design.device)
            places.append(torch.zeros_like(own) if number is None else own)
            factors.append(design[0] if number is None else torch.ones_like(design[0]))
        self._in_gradient = torch.cat([start[1 + part] + own for part, own in enumerate(places)])
        self._factors = torch.cat(factors)
        stops = [0, *accumulate(len(own) for own in places)]
        n_params = stops[-1]
        hessian = self._in_gradient.new_empty(n_params, n_params)
        for term, (a, b) in enumerate(pairs(len(designs)), 1 + len(designs)):
            row, column = places[a][:, None], places[b]
            first, second = numbers[a], numbers[b]
            if first is None or second is None:
                block = row + column
            elif first == second:
                block = _place_in_triangle(row, column, len(row))
            else:
                block = row * len(column) + column if first < second else column * len(row) + row
            rows, columns = slice(*stops[a : a + 2]), slice(*stops[b : b + 2])
            hessian[rows, columns] = start[term] + block
            hessian[columns, rows] = (start[term] + block).mT
        self._in_hessian = hessian.flatten()
        self._products_of_factors = (self._factors[:, None] * self._factors).flatten()

    def begin(self, n_genes: int) -> list[Tensor]:
        """Return sums of nothing."""
        return [
            self._weights.new_zeros(len(terms), n_genes, width)
            for terms, width in zip(self._stacks.values(), self._widths, strict=True)
        ]

    def add(self, sums: Sequence[Tensor], genes: slice, tile: int, terms: Terms) -> None:
        """Add the terms of some genes in a tile to the sums."""
        by_number = [terms.value, *terms.score, *terms.hessian]
        for total, stack, columns in zip(
            sums, self._stacks.values(), self._columns(tile), strict=True
        ):
            rows = [by_number[term] for term in stack]
            if columns.shape[1] > rowwise.FEW or terms.value.numel() < _FEW_ENTRIES:
                rows = [torch.cat(rows)]
            products = torch.stack([rowwise.product(x, columns) for x in rows])
            total[:, genes] += products.view(len(stack), -1, total.shape[2])

    def end(self, sums: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return value (genes,), gradient (genes, K) and Hessian (genes, K, K)."""
        whole = torch.cat([total.transpose(0, 1).flatten(1) for total in sums], 1)
        gradient = whole.index_select(1, self._in_gradient).mul_(self._factors)
        hessian = whole.index_select(1, self._in_hessian).mul_(self._products_of_factors)
        return whole[:, 0].clone(), gradient, hessian.view(*gradient.shape, -1)

    def _columns(self, tile: int) -> list[Tensor]:
        """Weighted columns that the terms of a tile meet, one matrix for each stack."""
        if tile in self._kept:
            return self._kept[tile]
        cells = self._tiles[tile]
        columns = [rowwise.pad_columns(self._product(met, cells)) for met in self._stacks]
        if not self._are_kept:  # but for the other genes of this tile
            self._kept.clear()
        self._kept[tile] = columns
        return columns

    def _product(self, met: _Met, cells: slice) -> Tensor:
        product = self._weights[cells]
        if _is_symmetric(met):
            columns = self.distinct[met[0]][cells].mT.contiguous()
            row, column = torch.triu_indices(*2 * [len(columns)], device=columns.device)
            both = columns.index_select(0, row).mul_(columns.index_select(0, column))
            return both.mul_(product.mT).mT
        for design in (self.distinct[number][cells] for number in met):
            product = (product[:, :, None] * design[:, None, :]).flatten(1)
        return product


def is_constant(design: Tensor) -> bool:
    """Tell whether a design is the same in all cells, as it is without columns."""
    return bool((design[:1] == design).all())


def _is_symmetric(met: _Met) -> bool:
    return len(set(met)) < len(met)


def _place_in_triangle(row: Tensor, column: Tensor, size: int) -> Tensor:
    """Return where in the upper triangle, row by row, an entry of a symmetric matrix stands."""
    low, high = torch.minimum(row, column), torch.maximum(row, column)
    return low * size - low * (low + 1) // 2 + high
