"""Sets of genes on which fits commonly fail, each beside ordinary genes of the same cells."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

N_HARD = 200
N_ORDINARY = 30
N_TYPES = 6


@dataclass
class StressSet:
    """Hard genes and ordinary ones, with the columns that explain them.

    Attributes
    ----------
    counts, ordinary : ndarray of shape (n_cells, n_genes)
    columns : dict of str to DataFrame
        Design of each part; a part that is not there has an intercept. That of the zero
        inflation belongs to the model "ZINB regressed" alone.
    offset : ndarray of shape (n_cells,)
    """

    counts: np.ndarray
    ordinary: np.ndarray
    columns: dict[str, pd.DataFrame]
    offset: np.ndarray

    def designs(self, model):
        """Design matrix of each part of a model."""
        one = pd.DataFrame({"Intercept": np.ones(len(self.offset))})
        parts = {"mean": self.columns["mean"], "dispersion": self.columns.get("dispersion", one)}
        if model != "NB":
            parts["zero_inflation"] = (
                self.columns["zero_inflation"] if model == "ZINB regressed" else one
            )
        return parts

    def frame(self, model):
        """Return the design frame that the regressors take."""
        parts = self.designs(model).items()
        columns = [table.add_prefix(f"{part}__") for part, table in parts]
        return pd.concat([*columns, pd.DataFrame({"offset__log_depth": self.offset})], axis=1)


def _line(x):
    return pd.DataFrame({"Intercept": 1.0, "x": x})


def _dummies(level):
    """Intercept and treatment contrasts, as a formula gives them."""
    levels = np.unique(level)
    own = {f"type[T.{k}]": (level == k).astype(float) for k in levels[1:]}
    return pd.DataFrame({"Intercept": np.ones(len(level))} | own)


def _negative_binomial(rng, mean, size):
    return rng.negative_binomial(size, size / (size + mean)).astype(float)


@dataclass
class _Cells:
    """Cells of six types with a covariate and a varying depth."""

    rng: np.random.Generator
    n: int
    depth_spread: float = 0.4

    def __post_init__(self):
        self.type = np.arange(self.n) % N_TYPES
        self.x = self.rng.uniform(-1, 1, self.n)
        self.offset = self.rng.normal(0, self.depth_spread, self.n)
        slope = self.rng.normal(0, 0.4, (1, N_ORDINARY))
        mean = self.means(2, 15, N_ORDINARY) * np.exp(self.x[:, None] * slope)
        self.ordinary = _negative_binomial(self.rng, mean, self.rng.uniform(1, 3, N_ORDINARY))
        self.ordinary *= self.rng.uniform(size=mean.shape) > 0.15

    def means(self, low, high, n_genes=N_HARD):
        """Means of genes, log-uniform between two values at depth one."""
        level = np.exp(self.rng.uniform(np.log(low), np.log(high), n_genes))
        return level * np.exp(self.offset)[:, None]

    def set(self, counts, mean, **columns):
        """Put hard genes and columns together."""
        columns = {"mean": mean, **columns}
        return StressSet(counts.astype(float), self.ordinary, columns, self.offset)


def low_mean(rng):
    cells = _Cells(rng, 120)
    return cells.set(_negative_binomial(rng, cells.means(0.05, 0.5), 1.0), _line(cells.x))


def pure_poisson(rng):
    cells = _Cells(rng, 120)
    return cells.set(rng.poisson(cells.means(0.3, 20)), _line(cells.x))


def poisson_by_type(rng):
    """Return Poisson counts whose size is regressed on the cell type."""
    cells = _Cells(rng, 120)
    counts = rng.poisson(cells.means(0.5, 20))
    return cells.set(counts, _line(cells.x), dispersion=_dummies(cells.type % 3))


def under_dispersed(rng):
    """Binomial counts of few trials: a variance of at most half the mean."""
    cells = _Cells(rng, 120, depth_spread=0.1)
    trials = rng.integers(2, 30, N_HARD)
    chance = rng.uniform(0.5, 0.6, N_HARD) * np.exp(cells.offset)[:, None]
    return cells.set(rng.binomial(trials, chance), _line(cells.x))


def silent_types(rng):
    """Genes that are silent in one to three of the six types."""
    cells = _Cells(rng, 120)
    counts = _negative_binomial(rng, cells.means(1, 20), rng.uniform(0.5, 3, N_HARD))
    silent = rng.permuted(np.tile(np.arange(N_TYPES), (N_HARD, 1)), axis=1)
    for gene, types in enumerate(silent):
        counts[np.isin(cells.type, types[: 1 + gene % 3]), gene] = 0
    by_type = _dummies(cells.type)
    return cells.set(counts, by_type, zero_inflation=by_type)


def silent_types_by_size(rng):
    """Genes that are silent in types of which each has a size of its own."""
    silent = silent_types(rng)
    silent.columns["dispersion"] = silent.columns["mean"]
    return silent


def few_cells(rng):
    """Genes that are seen in one to five cells."""
    cells = _Cells(rng, 120)
    counts = np.zeros((cells.n, N_HARD))
    for gene in range(N_HARD):
        seen = rng.choice(cells.n, 1 + gene % 5, replace=False)
        counts[seen, gene] = rng.geometric(0.4, len(seen))
    return cells.set(counts, _line(cells.x))


def all_zero(rng):
    cells = _Cells(rng, 60)
    return cells.set(np.zeros((cells.n, N_HARD)), _line(cells.x))


def huge_count(rng):
    """One count of a million among ordinary ones."""
    cells = _Cells(rng, 120)
    counts = _negative_binomial(rng, cells.means(1, 20), rng.uniform(0.5, 3, N_HARD))
    counts[rng.integers(0, cells.n, N_HARD), np.arange(N_HARD)] = 1e6
    return cells.set(counts, _line(cells.x))


def raw_depth(rng):
    """Total counts around 1e4, as they are, for a covariate."""
    cells = _Cells(rng, 120)
    mean = cells.means(0.5, 20)
    depth = np.round(1e4 * np.exp(cells.offset))
    columns = pd.DataFrame({"Intercept": 1.0, "total_counts": depth})
    return cells.set(_negative_binomial(rng, mean, rng.uniform(0.5, 3, N_HARD)), columns)


def structural_zeros(rng):
    """Counts of which 98 % were set to zero."""
    cells = _Cells(rng, 180)
    counts = _negative_binomial(rng, cells.means(2, 30), rng.uniform(0.5, 5, N_HARD))
    counts *= rng.uniform(size=counts.shape) > 0.98
    return cells.set(counts, _line(cells.x), zero_inflation=_line(cells.x))


def constant(rng):
    """Each gene with one and the same count in every cell."""
    cells = _Cells(rng, 60)
    return cells.set(np.tile(np.arange(N_HARD) % 40 + 1, (cells.n, 1)), _line(cells.x))


def _saturated(rng, n_coefficients):
    cells = _Cells(rng, n_coefficients + 1)
    columns = _line(cells.x).assign(x2=cells.x**2)
    return cells.set(_negative_binomial(rng, cells.means(0.5, 10), 2.0), columns)


def one_cell_to_spare(rng):
    """One cell more than coefficients (of a negative binomial: 3 and 1)."""
    return _saturated(rng, 4)


def one_cell_to_spare_inflated(rng):
    """One cell more than coefficients (zero-inflated: 3, 1 and 1)."""
    return _saturated(rng, 5)


def constant_level(rng):
    """Genes whose counts do not vary in one or two of the levels of the size."""
    cells = _Cells(rng, 120, depth_spread=0.1)
    counts = _negative_binomial(rng, cells.means(3, 20), rng.uniform(0.5, 3, N_HARD))
    for gene in range(N_HARD):
        still = np.isin(cells.type, [gene % N_TYPES, gene % 4])
        counts[still, gene] = rng.integers(1, 8)
    by_type = _dummies(cells.type)
    return cells.set(counts, by_type, dispersion=by_type, zero_inflation=by_type)


_BUILDERS = (
    low_mean,
    pure_poisson,
    poisson_by_type,
    under_dispersed,
    silent_types,
    silent_types_by_size,
    few_cells,
    all_zero,
    huge_count,
    raw_depth,
    structural_zeros,
    constant,
    one_cell_to_spare,
    one_cell_to_spare_inflated,
    constant_level,
)
SETS = {builder.__name__: builder for builder in _BUILDERS}
_REGRESSED = ("silent_types", "structural_zeros", "constant_level")
CASES = [
    (name, model)
    for name in SETS
    for model in ("NB", "ZINB", "ZINB regressed")
    if model != "ZINB regressed" or name in _REGRESSED
]


def build(name):
    """Return a set by its name, the same in every run."""
    return SETS[name](np.random.default_rng(list(name.encode())))
