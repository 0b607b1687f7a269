"""Presets of simulated screens: cells, means, sizes and effects as in fits to real screens.

The guide page on data sets compares each number here with its real set. ``doc/presets.py`` prints
both.
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
    # Takes the columns of one covariate and the genes, and returns an array (columns, genes).
    DrawEffects: TypeAlias = Callable[[list[str], list[str], Source], FloatArray]


@dataclass(frozen=True)
class Quantiles:
    """A distribution given by some of its quantiles, with linear interpolation between them."""

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def draw(self, size: int, rng: Source) -> FloatArray:
        """Return a stratified sample: one variate from each of `size` equal shares.

        So a panel of a few dozen genes has genes of low and high mean, too.
        """
        level = (rng.permutation(size) + rng.uniform(size=size)) / size
        return np.interp(level, self.levels, self.values)


@dataclass(frozen=True)
class Preset:
    """Parameters of one kind of screen.

    Attributes
    ----------
    formulas : dict of str to str
        Formulas of the parts that have one.
    draw_cells : callable
        Function of the number of cells, the names of genes and a source of random numbers. It
        returns the covariates.
    log_mean : Quantiles
        Distribution over genes of the log mean over all cells.
    log_size : tuple of float
        Log size of a gene of mean 1, its slope in the log mean, and its standard deviation
        around that line.
    effects : dict of str to dict of str to callable
        Functions that draw the effects of a covariate, by part and covariate.
    donor_sd : tuple of float or None
        Range of the standard deviation over donors of a gene's log mu.
    """

    formulas: Mapping[str, str]
    draw_cells: DrawCells
    log_mean: Quantiles
    log_size: tuple[float, float, float]
    effects: Mapping[str, Mapping[str, DrawEffects]]
    donor_sd: tuple[float, float] | None = None


def sparse_effects(share: float, sd: float) -> DrawEffects:
    """Return a function that draws effects: normal in a share of the genes, zero in the others."""

    def draw(columns: list[str], genes: list[str], rng: Source) -> FloatArray:
        shape = (len(columns), len(genes))
        return np.where(rng.uniform(size=shape) < share, rng.normal(0.0, sd, size=shape), 0.0)

    return draw


def smooth_trends(sd: float, spread: float) -> DrawEffects:
    """Return a function that draws smooth trends: random walks over the columns of a spline.

    The standard deviation of the normal steps is log-normal over genes, with the median `sd` and
    the standard deviation `spread` of its logarithm.
    """

    def draw(columns: list[str], genes: list[str], rng: Source) -> FloatArray:
        own_sd = rng.lognormal(np.log(sd), spread, size=len(genes))
        return rng.normal(0.0, own_sd, size=(len(columns), len(genes))).cumsum(axis=0)

    return draw


def guide_effects(columns: list[str], genes: list[str], rng: Source) -> FloatArray:
    """Draw effects of guides: one pattern per target gene, times the efficiency of each guide.

    A guide lowers its target gene, and changes 3 in 100 other genes.
    """
    targets = [column.split("[T.")[-1].rsplit("-", 1)[0] for column in columns]
    effects = np.zeros((len(columns), len(genes)))
    for target in dict.fromkeys(targets):
        pattern = sparse_effects(0.03, 0.6)([target], genes, rng)[0]
        if target in genes:
            pattern[genes.index(target)] = -rng.uniform(1.0, 2.0)
        for i in np.flatnonzero(np.array(targets) == target):
            effects[i] = rng.uniform(0.5, 1.0) * pattern
    return effects


def _draw_levels(levels: list[str], shares: FloatArray, size: int, rng: Source) -> pd.Categorical:
    """Draw levels of a factor."""
    codes = rng.choice(len(levels), size=size, p=shares / shares.sum())
    return _as_factor(levels, codes)


def _as_factor(levels: list[str], codes: NDArray[np.integer]) -> pd.Categorical:
    return pd.Categorical(np.array(levels)[codes], categories=levels)


def _draw_size_factors(sd: float, medians: FloatArray, rng: Source) -> FloatArray:
    """Draw log-normal size factors with these medians."""
    return medians * rng.lognormal(0.0, sd, size=medians.size)


# Number of cells of each type, and their median depth relative to the median of all cells.
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


def _draw_blood_cells(n_samples: int, genes: list[str], rng: Source) -> pd.DataFrame:  # noqa: ARG001
    shares, medians = np.array(list(_PBMC_CELLS.values())).T
    cell_type = _draw_levels(list(_PBMC_CELLS), shares, n_samples, rng)
    return pd.DataFrame(
        {
            "cell_type": cell_type,
            "size_factor": _draw_size_factors(0.35, medians[cell_type.codes], rng),
        }
    )


# Number of cells of each type, mean and standard deviation of their pseudotime, and their median
# depth relative to the median of all cells.
_PANCREAS_CELLS = {
    "Ngn3 low EP": (262, 0.04, 0.03, 1.21),
    "Ngn3 high EP": (642, 0.285, 0.10, 0.97),
    "Pre-endocrine": (592, 0.59, 0.09, 0.80),
    "Beta": (591, 0.85, 0.09, 1.01),
}


def _draw_endocrine_cells(n_samples: int, genes: list[str], rng: Source) -> pd.DataFrame:  # noqa: ARG001
    shares, centers, spreads, medians = np.array(list(_PANCREAS_CELLS.values())).T
    cell_type = _draw_levels(list(_PANCREAS_CELLS), shares, n_samples, rng)
    pseudotime = rng.normal(centers[cell_type.codes], spreads[cell_type.codes])
    return pd.DataFrame(
        {
            "pseudotime": pseudotime.clip(0.0, 1.0),
            "cell_type": cell_type,
            "size_factor": _draw_size_factors(0.2, medians[cell_type.codes], rng),
        }
    )


NON_TARGETING = "non-targeting"
_N_TARGET_GENES, _GUIDES_PER_GENE = 14, 4


def _draw_perturbed_cells(n_samples: int, genes: list[str], rng: Source) -> pd.DataFrame:
    targeted = genes[:_N_TARGET_GENES]
    guides = [f"{gene}-{i}" for gene in targeted for i in range(1, _GUIDES_PER_GENE + 1)]
    # Guide libraries are uneven: some guides are in ten times as many cells as others.
    shares = 0.6 * rng.dirichlet(np.full(len(guides), 4.0))
    return pd.DataFrame(
        {
            "lane": _draw_levels(["lane_1", "lane_2"], np.ones(2), n_samples, rng),
            "guide": _draw_levels([NON_TARGETING, *guides], np.r_[0.4, shares], n_samples, rng),
            "size_factor": _draw_size_factors(0.35, np.ones(n_samples), rng),
        }
    )


_DONORS_PER_CONDITION = 6
_DONORS_CELL_TYPE_SHARES = {"T": 0.5, "Mono": 0.25, "B": 0.15, "NK": 0.1}


def _draw_cells_of_donors(n_samples: int, genes: list[str], rng: Source) -> pd.DataFrame:  # noqa: ARG001
    n_donors = 2 * _DONORS_PER_CONDITION
    donors = [f"donor_{i + 1}" for i in range(n_donors)]
    donor = _draw_levels(donors, rng.dirichlet(np.full(n_donors, 10.0)), n_samples, rng)
    # Besides their effects on genes, donors differ in the shares of cell types and in depth.
    shares = rng.dirichlet(20.0 * np.array(list(_DONORS_CELL_TYPE_SHARES.values())), size=n_donors)
    thresholds = shares.cumsum(axis=1)[donor.codes, :-1]
    cell_type = (rng.uniform(size=(n_samples, 1)) > thresholds).sum(axis=1)
    depths = rng.lognormal(0.0, 0.2, size=n_donors)
    return pd.DataFrame(
        {
            "condition": _as_factor(["control", "case"], donor.codes // _DONORS_PER_CONDITION),
            "donor": donor,
            "cell_type": _as_factor(list(_DONORS_CELL_TYPE_SHARES), cell_type),
            "size_factor": _draw_size_factors(0.4, depths[donor.codes], rng),
        }
    )


_OFFSET = "np.log(size_factor)"

PRESETS = {
    "pbmc": Preset(
        formulas={"mean": "~ cell_type", "offset": _OFFSET},
        draw_cells=_draw_blood_cells,
        # The lower half has no counts in the real screen, so that its values are guesses.
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
        draw_cells=_draw_endocrine_cells,
        log_mean=Quantiles(
            (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1),
            (0.04, 0.27, 0.41, 0.7, 1.11, 1.65, 2.39, 2.86, 3.75, 3.85),
        ),
        log_size=(-0.1, 0.6, 0.4),
        effects={
            "mean": {"pseudotime": smooth_trends(1.0, 0.6), "cell_type": sparse_effects(0.5, 0.8)},
            "dispersion": {"pseudotime": smooth_trends(1.2, 0.3)},
        },
    ),
    "perturbation": Preset(
        formulas={"mean": "~ lane + guide", "offset": _OFFSET},
        draw_cells=_draw_perturbed_cells,
        log_mean=Quantiles(
            (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1),
            (-7.9, -5.7, -3.6, -2.7, -0.76, 0.48, 1.52, 3.45, 3.88, 5.24, 6.06),
        ),
        log_size=(1.2, 0.1, 0.35),
        effects={"mean": {"lane": sparse_effects(1.0, 0.17), "guide": guide_effects}},
    ),
    "donors": Preset(
        formulas={"mean": "~ condition + cell_type", "offset": _OFFSET},
        draw_cells=_draw_cells_of_donors,
        # Genes of blood cells with a mean of at least 0.05, which such comparisons keep.
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
