"""The terms of a tile from one compiled loop, for fits that are worth a compiler's time.

Without it, each operation on a tile is a loop of its own. That costs much only where there are many
of them, as in a zero-inflated model. The compiler rounds the last elements of a loop in another way
than the rest: here, and nowhere else, a gene's digits depend on the genes beside it.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial

import torch
from torch import Tensor

from sc_glm._likelihood.family import ZERO_INFLATION, Family, Terms
from sc_glm._likelihood.gamma_ratio_table import SmallCounts, tile_of

# Cells x genes of a fit from which on it gains more than a compiler takes (10 to 20 seconds, once
# for each process that fits).
LARGE = 500_000_000


class FusedTile:
    """A family's ``tile_of`` of ``gamma_ratio_table``, compiled when it is first needed.

    Where there is no compiler, or it fails, this is the same without.

    Parameters
    ----------
    family : Family

    Attributes
    ----------
    works : bool
        Whether no compilation has failed so far.
    """

    def __init__(self, family: Family) -> None:
        self._plain = partial(tile_of, family)
        self.works = True

    @cached_property
    def _compiled(self) -> Callable[..., Terms]:
        options: dict[str, str | int | bool | Callable[..., object]] = {
            "cpp.threads": 1,
            "compile_threads": 1,
        }
        return torch.compile(self._plain, dynamic=True, options=options)

    def __call__(
        self,
        predictors: Sequence[Tensor],
        y: Tensor,
        zeros: Tensor | None = None,
        small: SmallCounts | None = None,
    ) -> Terms:
        """Return the terms of a tile."""
        # A compiler would take a single row, column or count, or none, for another case.
        if self.works and min(*y.shape, 2 if small is None else len(small.y)) > 1:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what the compiler has to say of itself
                    return self._compiled(predictors, y, zeros, small)
            except Exception:  # noqa: BLE001 - whatever it is, there is another way
                self.works = False
        return self._plain(predictors, y, zeros, small)


@cache
def fused_tile(family: Family) -> FusedTile:
    """Return a family's compiled tile, the same in all of a process."""
    return FusedTile(family)


def is_worth_fusing(
    family: Family, n_entries: int, device: torch.device, dtype: torch.dtype
) -> bool:
    """Tell whether a fit of so many cells x genes is shorter with a compiled tile."""
    zero_inflated = ZERO_INFLATION in family.parts
    return zero_inflated and n_entries >= LARGE and device.type == "cpu" and dtype == torch.float64
