"""What the simulated screens look like: cells, means, sizes and effects as fits to real ones find.

Each number here stands beside its real set in the guide page on data sets; ``doc/presets.py``
prints both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.random import Generator, RandomState
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float64]
    Source: TypeAlias = RandomState | Generator
    DrawCells: TypeAlias = Callable[[int, list[str], Source], pd.DataFrame]
    # Given the columns of one covariate, and the genes: effects of shape (columns, genes).
    DrawEffects: TypeAlias = Callable[[list[str], list[str], Source], FloatArray]


@dataclass(frozen=True)
class Quantiles:
    """A distribution by some of its quantiles, linear between them."""

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def draw(self, size: int, rng: Source) -> FloatArray:
        """Return `size` variates, one from each of as many equal shares of the distribution.

        So a panel of a few dozen genes has low and high ones, too.
        """
        level = (rng.permutation(size) + rng.uniform(size=size)) / size
        return np.interp(level, self.levels, self.values)


@dataclass(frozen=True)
class Preset:
    """A kind of screen.

    Attributes
    ----------
    formulas : dict of str to str
        Formulas of the parts that have one.
    draw_cells : callable
        Given the number of cells, the genes' names and random numbers, it returns covariates.
    log_mean : Quantiles
        Of genes' log means over all cells.
    log_size : tuple of float
        Log size of a gene of mean 1, its slope in the log mean, and its standard deviation
        around that line.
    effects : dict of str to dict of str to callable
        What draws the effects of a covariate on a part.
    donor_sd : tuple of float or None
        Between which values the standard deviation over donors of a gene's log mu lies.
    """

    formulas: Mapping[str, str]
    draw_cells: DrawCells
    log_mean: Quantiles
    log_size: tuple[float, float, float]
    effects: Mapping[str, Mapping[str, DrawEffects]]
    donor_sd: tuple[float, float] | None = None


def sparse_effects(share: float, sd: float) -> DrawEffects:
    """Return what draws effects that are normal in a share of the genes, and zero in the others."""

    def draw(columns: list[str], genes: list[str], rng: Source) -> FloatArray:
        shape = (len(columns), len(genes))
        return np.where(rng.uniform(size=shape) < share, rng.normal(0.0, sd, size=shape), 0.0)

    return draw


def trends(sd: float, spread: float) -> DrawEffects:
    """Return what draws smooth trends: from one column of a spline to the next a normal step.

    Genes differ in how far they go: the logarithm of a gene's own deviation has this `spread`.
    """

    def draw(columns: list[str], genes: list[str], rng: Source) -> FloatArray:
        own_sd = rng.lognormal(np.log(sd), spread, size=len(genes))
        return rng.normal(0.0, own_sd, size=(len(columns), len(genes))).cumsum(axis=0)

    return draw


def guide_effects(columns: list[str], genes: list[str], rng: Source) -> FloatArray:
    """Draw effects of guides: those of one gene share them, each by its own efficiency.

    A guide lowers the gene that it is named for, and moves 3 in 100 others.
    """
    targets = [column.split("[T.")[-1].rsplit("-", 1)[0] for column in columns]
    effects = np.zeros((len(columns), len(genes)))
    for target in dict.fromkeys(targets):
        moved = sparse_effects(0.03, 0.6)([target], genes, rng)[0]
        if target in genes:
            moved[genes.index(target)] = -rng.uniform(1.0, 2.0)
        for i in np.flatnonzero(np.array(targets) == target):
            effects[i] = rng.uniform(0.5, 1.0) * moved
    return effects


def _categorical(levels: list[str], shares: FloatArray, size: int, rng: Source) -> pd.Categorical:
    """Draw levels of a factor."""
    codes = rng.choice(len(levels), size=size, p=shares / shares.sum())
    return _factor(levels, codes)


def _factor(levels: list[str], codes: NDArray[np.integer]) -> pd.Categorical:
    return pd.Categorical(np.array(levels)[codes], categories=levels)


def _depth(sd: float, medians: FloatArray, rng: Source) -> FloatArray:
    """Draw size factors around the medians of the cells' types."""
    return medians * rng.lognormal(0.0, sd, size=medians.size)


# Cells of each type, and their median depth as a multiple of all cells' median.
_PBMC_CELLS = {
    "Naive CD4 T": (697, 1.00),
    "Memory CD4 T": (483, 1.16),
    "CD14+ Mono": (480, 1.06),
    "B": (344, 0.80),
    "CD8 T": (271, 0.91),
    "FCGR3A+ Mono": (162, 1.75),
    "NK": (155, 0.87),
    "DC": (32, 2.54),
    "Platelet": (14, 0.42),
}


def _blood_cells(n_samples: int, genes: list[str], rng: Source) -> pd.DataFrame:  # noqa: ARG001
    shares, medians = np.array(list(_PBMC_CELLS.values())).T
    cell_type = _categorical(list(_PBMC_CELLS), shares, n_samples, rng)
    return pd.DataFrame(
        {"cell_type": cell_type, "size_factor": _depth(0.35, medians[cell_type.codes], rng)}
    )


# Cells of each type, mean and standard deviation of their pseudotime, and their median depth.
_PANCREAS_CELLS = {
    "Ngn3 low EP": (262, 0.04, 0.03, 1.21),
    "Ngn3 high EP": (642, 0.285, 0.10, 0.97),
    "Pre-endocrine": (592, 0.59, 0.09, 0.80),
    "Beta": (591, 0.85, 0.09, 1.01),
}


def _endocrine_cells(n_samples: int, genes: list[str], rng: Source) -> pd.DataFrame:  # noqa: ARG001
    shares, centers, spreads, medians = np.array(list(_PANCREAS_CELLS.values())).T
    cell_type = _categorical(list(_PANCREAS_CELLS), shares, n_samples, rng)
    pseudotime = rng.normal(centers[cell_type.codes], spreads[cell_type.codes])
    return pd.DataFrame(
        {
            "pseudotime": pseudotime.clip(0.0, 1.0),
            "cell_type": cell_type,
            "size_factor": _depth(0.2, medians[cell_type.codes], rng),
        }
    )


NON_TARGETING = "non-targeting"
_N_TARGETED, _GUIDES_EACH = 14, 4


def _perturbed_cells(n_samples: int, genes: list[str], rng: Source) -> pd.DataFrame:
    targeted = genes[:_N_TARGETED]
    guides = [f"{gene}-{i}" for gene in targeted for i in range(1, _GUIDES_EACH + 1)]
    # Libraries are not even: some guides are in ten times as many cells as others.
    shares = 0.6 * rng.dirichlet(np.full(len(guides), 4.0))
    return pd.DataFrame(
        {
            "lane": _categorical(["lane_1", "lane_2"], np.ones(2), n_samples, rng),
            "guide": _categorical([NON_TARGETING, *guides], np.r_[0.4, shares], n_samples, rng),
            "size_factor": _depth(0.35, np.ones(n_samples), rng),
        }
    )


_DONORS_EACH = 6
_DONORS_CELL_TYPES = {"T": 0.5, "Mono": 0.25, "B": 0.15, "NK": 0.1}


def _donors_cells(n_samples: int, genes: list[str], rng: Source) -> pd.DataFrame:  # noqa: ARG001
    n_donors = 2 * _DONORS_EACH
    donors = [f"donor_{i + 1}" for i in range(n_donors)]
    donor = _categorical(donors, rng.dirichlet(np.full(n_donors, 10.0)), n_samples, rng)
    # Donors differ in the composition of their cells and in depth, beside their effects.
    shares = rng.dirichlet(20.0 * np.array(list(_DONORS_CELL_TYPES.values())), size=n_donors)
    thresholds = shares.cumsum(axis=1)[donor.codes, :-1]
    cell_type = (rng.uniform(size=(n_samples, 1)) > thresholds).sum(axis=1)
    depths = rng.lognormal(0.0, 0.2, size=n_donors)
    return pd.DataFrame(
        {
            "condition": _factor(["control", "case"], donor.codes // _DONORS_EACH),
            "donor": donor,
            "cell_type": _factor(list(_DONORS_CELL_TYPES), cell_type),
            "size_factor": _depth(0.4, depths[donor.codes], rng),
        }
    )


_OFFSET = "np.log(size_factor)"

PRESETS = {
    "pbmc": Preset(
        formulas={"mean": "~ cell_type", "offset": _OFFSET},
        draw_cells=_blood_cells,
        # Of the half that no cell shows, nothing is known but that it is low.
        log_mean=Quantiles(
            (0, 0.25, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.85, 0.9, 0.95, 0.99, 0.999, 1),
            (-14, -11, -7.9, -7.2, -6.5, -5.7, -4.9, -4.3, -3.25, -2.67, -1.88, -0.22, 2.5, 4.1),
        ),
        log_size=(0.9, 0.2, 0.8),
        effects={"mean": {"cell_type": sparse_effects(0.5, 0.8)}},
    ),
    "pancreas": Preset(
        formulas={
            "mean": "~ bs(pseudotime, df=5)",
            "dispersion": "~ pseudotime",
            "offset": _OFFSET,
        },
        draw_cells=_endocrine_cells,
        log_mean=Quantiles(
            (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1),
            (0.04, 0.27, 0.41, 0.7, 1.11, 1.65, 2.39, 2.86, 3.75, 3.85),
        ),
        log_size=(-0.1, 0.6, 0.4),
        effects={
            "mean": {"pseudotime": trends(1.0, 0.6), "cell_type": sparse_effects(0.5, 0.8)},
            "dispersion": {"pseudotime": trends(1.2, 0.3)},
        },
    ),
    "perturbation": Preset(
        formulas={"mean": "~ lane + guide", "offset": _OFFSET},
        draw_cells=_perturbed_cells,
        log_mean=Quantiles(
            (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1),
            (-7.9, -5.7, -3.6, -2.7, -0.76, 0.48, 1.52, 3.45, 3.88, 5.24, 6.06),
        ),
        log_size=(1.2, 0.1, 0.35),
        effects={"mean": {"lane": sparse_effects(1.0, 0.17), "guide": guide_effects}},
    ),
    "donors": Preset(
        formulas={"mean": "~ condition + cell_type", "offset": _OFFSET},
        draw_cells=_donors_cells,
        # Blood cells' genes of mean 0.05 and more, which such comparisons keep.
        log_mean=Quantiles(
            (0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1),
            (-2.99, -2.92, -2.61, -2.14, -1.45, -0.52, 0.39, 2.3, 4.1),
        ),
        log_size=(0.9, 0.2, 0.8),
        effects={
            "mean": {
                "condition": sparse_effects(0.2, 0.7),
                "cell_type": sparse_effects(0.5, 0.8),
            }
        },
        donor_sd=(0.1, 0.5),
    ),
}
