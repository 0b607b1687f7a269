"""Assembly of value, gradient and Hessian: sums over cells of terms times columns of designs.

Terms that are multiplied by the same columns are stacked, so that one matrix product serves all.
Such terms are the scores of parts with equal designs, and their second derivatives, whose products
of columns are symmetric. The terms of a part whose predictor is constant need no columns.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.family import Terms, pairs

# Terms with few columns are copied for one matrix product if a tile has fewer entries than this. In
# larger tiles the copy costs more time than it saves.
_MAX_COPIED_ENTRIES = 16_384

# Products of columns are kept in memory if they have at most this number of entries.
_MAX_CACHED_ENTRIES = 16_000_000

_Factors = tuple[int, ...]  # numbers of the designs that multiply a term: none, one or two


class HessianAssembly:
    """Assembly of the terms of tiles to a value, a gradient and a Hessian.

    Parameters
    ----------
    designs : sequence of Tensor of shape (n_cells, rank)
        Design of each part.
    weights : Tensor of shape (n_cells,)
        Weights of the cells.
    bounds : sequence of int
        First cell of each tile, and the number of cells.

    Attributes
    ----------
    distinct_designs : list of Tensor of shape (n_cells, rank)
        Distinct designs that are not constant.
    design_numbers : list of int or None
        Number of each part's design in `distinct_designs`; None if its predictor is constant.
    """

    def __init__(self, designs: Sequence[Tensor], weights: Tensor, bounds: Sequence[int]) -> None:
        self.distinct_designs: list[Tensor] = []
        self.design_numbers = [self._design_number(design) for design in designs]
        self._weights = weights[:, None]
        self._tiles = [slice(*ends) for ends in pairwise(bounds)]
        score_factors: list[_Factors] = [() if i is None else (i,) for i in self.design_numbers]
        hessian_factors = [
            tuple(sorted(score_factors[a] + score_factors[b])) for a, b in pairs(len(designs))
        ]
        factors_of_terms: list[_Factors] = [(), *score_factors, *hessian_factors]
        # Terms are numbered in the order of value, scores and Hessian.
        self._stacks = {
            factors: [term for term, other in enumerate(factors_of_terms) if other == factors]
            for factors in factors_of_terms
        }
        self._widths = [rowwise.padded_width(self._n_columns(factors)) for factors in self._stacks]
        self._are_cached = len(weights) * sum(self._widths) <= _MAX_CACHED_ENTRIES
        self._cached_columns: dict[int, list[Tensor]] = {}
        self._find_positions(designs)

    def _design_number(self, design: Tensor) -> int | None:
        """Return the number of a design among the distinct ones; None if it is constant."""
        if is_constant(design):
            return None
        for number, other in enumerate(self.distinct_designs):
            if torch.equal(design, other):
                return number
        self.distinct_designs.append(design)
        return len(self.distinct_designs) - 1

    def _n_columns(self, factors: _Factors) -> int:
        """Return the number of distinct products of columns."""
        ranks = [self.distinct_designs[number].shape[1] for number in factors]
        if _is_symmetric(factors):
            return ranks[0] * (ranks[0] + 1) // 2
        return math.prod(ranks)

    def _find_positions(self, designs: Sequence[Tensor]) -> None:
        """Find the positions of the entries of gradient and Hessian among all sums.

        Columns of a constant design multiply a sum afterwards.
        """
        start, position = {}, 0
        for terms, width in zip(self._stacks.values(), self._widths, strict=True):
            for term in terms:
                start[term] = position
                position += width
        numbers = self.design_numbers
        columns, constants = [], []
        for design, number in zip(designs, numbers, strict=True):
            indices = torch.arange(design.shape[1], device=design.device)
            columns.append(torch.zeros_like(indices) if number is None else indices)
            constants.append(design[0] if number is None else torch.ones_like(design[0]))
        self._in_gradient = torch.cat(
            [start[1 + part] + indices for part, indices in enumerate(columns)]
        )
        self._constants = torch.cat(constants)
        stops = [0, *accumulate(len(indices) for indices in columns)]
        n_params = stops[-1]
        hessian = self._in_gradient.new_empty(n_params, n_params)
        for term, (a, b) in enumerate(pairs(len(designs)), 1 + len(designs)):
            row, column = columns[a][:, None], columns[b]
            first, second = numbers[a], numbers[b]
            if first is None or second is None:
                block = row + column
            elif first == second:
                block = _position_in_triangle(row, column, len(row))
            else:
                block = row * len(column) + column if first < second else column * len(row) + row
            params_a, params_b = slice(*stops[a : a + 2]), slice(*stops[b : b + 2])
            hessian[params_a, params_b] = start[term] + block
            hessian[params_b, params_a] = (start[term] + block).mT
        self._in_hessian = hessian.flatten()
        self._products_of_constants = (self._constants[:, None] * self._constants).flatten()

    def begin(self, n_genes: int) -> list[Tensor]:
        """Return the sums before any tile is added: zeros."""
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
            if (
                columns.shape[1] > rowwise.MAX_UNPADDED_COLUMNS
                or terms.value.numel() < _MAX_COPIED_ENTRIES
            ):
                rows = [torch.cat(rows)]
            products = torch.stack([rowwise.product(x, columns) for x in rows])
            total[:, genes] += products.view(len(stack), -1, total.shape[2])

    def end(self, sums: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return value (genes,), gradient (genes, K) and Hessian (genes, K, K)."""
        all_sums = torch.cat([total.transpose(0, 1).flatten(1) for total in sums], 1)
        gradient = all_sums.index_select(1, self._in_gradient).mul_(self._constants)
        hessian = all_sums.index_select(1, self._in_hessian).mul_(self._products_of_constants)
        return all_sums[:, 0].clone(), gradient, hessian.view(*gradient.shape, -1)

    def _columns(self, tile: int) -> list[Tensor]:
        """Return the weighted columns for the terms of a tile, one matrix for each stack."""
        if tile in self._cached_columns:
            return self._cached_columns[tile]
        cells = self._tiles[tile]
        columns = [rowwise.pad_columns(self._product(factors, cells)) for factors in self._stacks]
        if not self._are_cached:  # keep only those of the current tile, which all genes use
            self._cached_columns.clear()
        self._cached_columns[tile] = columns
        return columns

    def _product(self, factors: _Factors, cells: slice) -> Tensor:
        """Return the weighted products of the columns of some designs."""
        product = self._weights[cells]
        if _is_symmetric(factors):
            columns = self.distinct_designs[factors[0]][cells].mT.contiguous()
            row, column = torch.triu_indices(*2 * [len(columns)], device=columns.device)
            both = columns.index_select(0, row).mul_(columns.index_select(0, column))
            return both.mul_(product.mT).mT
        for design in (self.distinct_designs[number][cells] for number in factors):
            product = (product[:, :, None] * design[:, None, :]).flatten(1)
        return product


def is_constant(design: Tensor) -> bool:
    """Return whether all rows of a design are equal; they are if it has no columns."""
    return bool((design[:1] == design).all())


def _is_symmetric(factors: _Factors) -> bool:
    """Return whether a design is multiplied by itself."""
    return len(set(factors)) < len(factors)


def _position_in_triangle(row: Tensor, column: Tensor, size: int) -> Tensor:
    """Return the position of an entry of a symmetric matrix in its upper triangle, row by row."""
    low, high = torch.minimum(row, column), torch.maximum(row, column)
    return low * size - low * (low + 1) // 2 + high
