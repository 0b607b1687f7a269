"""The terms of a tile from one compiled loop, for fits that are large enough to gain from it.

Without compilation, each operation on a tile is a loop of its own. Zero-inflated models have many
operations and gain much. Compiled loops round their last elements differently. Here, and nowhere
else, the last digits of a gene therefore depend on the other genes of its block.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial

import torch
from torch import Tensor

from sc_glm._likelihood.family import ZERO_INFLATION, Family, Terms
from sc_glm._likelihood.gamma_ratio_table import SmallCounts, tile_terms

# Smallest number of cells x genes of a fit that is compiled. A smaller fit gains less time than the
# compilation takes: 10 to 20 seconds in each process that fits.
MIN_ENTRIES = 500_000_000


class FusedTile:
    """The function ``tile_terms`` of a family, compiled at its first call.

    The function runs without compilation if there is no compiler, or if compilation fails.

    Parameters
    ----------
    family : Family
        Distribution of the counts.

    Attributes
    ----------
    works : bool
        Whether no compilation has failed yet.
    """

    def __init__(self, family: Family) -> None:
        self._plain = partial(tile_terms, family)
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
        """Return the terms of a tile.

        The arguments are those of :func:`~sc_glm._likelihood.gamma_ratio_table.tile_terms`.
        """
        # torch would compile again for a dimension of length one or zero.
        if self.works and min(*y.shape, 2 if small is None else len(small.y)) > 1:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # warnings of the compiler about itself
                    return self._compiled(predictors, y, zeros, small)
            except Exception:  # noqa: BLE001 - any error leads to the plain function
                self.works = False
        return self._plain(predictors, y, zeros, small)


@cache
def fused_tile(family: Family) -> FusedTile:
    """Return the compiled function of a family, which is shared by all fits of a process."""
    return FusedTile(family)


def is_worth_fusing(
    family: Family, n_entries: int, device: torch.device, dtype: torch.dtype
) -> bool:
    """Return whether a fit gains more time from compilation than the compilation takes.

    Parameters
    ----------
    family : Family
        Distribution of the counts.
    n_entries : int
        Number of cells x genes of the fit.
    device : torch.device
        Device of the fit.
    dtype : torch.dtype
        Precision of the fit.
    """
    zero_inflated = ZERO_INFLATION in family.parts
    on_cpu_in_double = device.type == "cpu" and dtype == torch.float64
    return zero_inflated and n_entries >= MIN_ENTRIES and on_cpu_in_double
