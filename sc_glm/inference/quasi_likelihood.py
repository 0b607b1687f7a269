"""Tests of sums of cells, such as donors, whose dispersions are moderated over all genes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.linalg
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import as_pandas, check_same_order
from sc_glm._counts.count_matrix import CountMatrix
from sc_glm._likelihood.family import MEAN
from sc_glm._solver.status import Status
from sc_glm.estimators.pipeline import make_pipeline
from sc_glm.estimators.regressors import NegBinRegressor
from sc_glm.formula.transformer import FormulaTransformer
from sc_glm.inference.bartlett import lawley_epsilon
from sc_glm.inference.contrasts import ContrastReader
from sc_glm.inference.dispersion_prior import LOG_OVERDISPERSION, posterior_dispersions
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.known_dispersion import Samples, orthonormal
from sc_glm.inference.model_formula import ModelFormula
from sc_glm.inference.p_values import adjust_p_values, log_f_tail, p_value_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.contrasts import Contrast
    from sc_glm.inference.dispersion_prior import Posterior
    from sc_glm.inference.known_dispersion import Fit

__all__ = ["quasi_likelihood_test"]

_BLOCK_ENTRIES = 200_000  # genes x samples at a time
_BARTLETT_NODES = 4  # of the grid, at which Bartlett's correction is computed
_MAX_CORRECTION = 0.5  # of a statistic, relative
_INFINITE_VARIANCE = 1e4  # of an estimate: its information is that of less than a single count
_MIN_GENES = 10
_LOG_DEPTH = "log_depth"
_LOG_2 = np.log(2.0)
_DISPERSIONS = (
    "overdispersion_trend",
    "overdispersion",
    "quasi_dispersion_raw",
    "quasi_dispersion",
)


@documented(ENTRIES)
def quasi_likelihood_test(
    pseudobulk: Any,
    formula: str,
    contrast: Any,
    *,
    y: Any = None,
    offset: str | None = _LOG_DEPTH,
) -> pd.DataFrame:
    r"""Test which genes differ between donors, or other units whose cells were summed.

    The units are few, and the variation between them differs by gene. The dispersion of each gene
    is moderated: all genes determine how dispersions are distributed, and the sums of a gene
    determine where it is in this distribution. What remains uncertain enters the p-value, as
    denominator degrees of freedom.

    Parameters
    ----------
    pseudobulk : AnnData or DataFrame
        The sums: an AnnData from :func:`sc_glm.adata.pseudobulk`, or a frame with a row of
        covariates for each sample.
    formula : str
        Formula of the mean, as in :class:`~sc_glm.FormulaTransformer`: ``"~ condition + sex"``.
    contrast : tuple, str, list of str or array-like
        What is tested:

        - ``(factor, level, reference)``, such as ``("condition", "case", "control")``: the
          difference of two levels. Two values of a number are compared in the same way:
          ``("age", 60, 30)``;
        - a term of the formula, such as ``"condition"``: all its coefficients jointly;
        - a constraint, as in :func:`wald_test`: ``"condition[T.case] = 0"``;
        - a vector with a weight for each coefficient, or several as rows.
    y : array-like, DataFrame or sparse matrix of shape (n_samples, n_genes), default=None
        The sums, if `pseudobulk` is a frame; None if it is an AnnData, whose ``X`` has them.
    offset : str, default="log_depth"
        Formula of the offset, which is added to the logarithm of the mean. The default is a column
        that :func:`sc_glm.adata.pseudobulk` writes. None is no offset.

    Returns
    -------
    DataFrame
        One row per gene, with the genes as index, and columns

        base_mean
            Average of a gene's sums, each at the average log depth.
        log2_fold_change
            Estimate of the contrast to the base 2, less its right-hand side. It is infinite if one
            side has no counts. For a joint test, it is the largest minus the smallest value of the
            tested coefficients' contribution over the samples.
        standard_error
            Standard error of `log2_fold_change`; NaN if this is infinite or of a joint test.
        statistic
            F statistic: the likelihood ratio at a known dispersion, divided by `df`, on average
            over the dispersions that are possible given the counts.
        df
            Number of constraints.
        df_denominator
            Degrees of freedom of the moderated dispersion: residual ones, and those that other
            genes contribute. They are those of a gamma distribution with the relative variance of
            the estimate's precision.
        p_value
            P-value, at least 2.2e-308, the smallest normal number. It is the average of those at
            known dispersions, which is close to the tail of the F distribution.
        {log10_p_value}
        {p_adjusted}
        overdispersion_trend
            ``1 / r`` of a typical gene with this mean: the geometric mean over genes.
        overdispersion
            Moderated ``1 / r``: the geometric mean over what is possible given the counts.
        quasi_dispersion_raw
            Pearson's statistic of the gene alone at the trend, divided by its degrees of freedom.
        quasi_dispersion
            Moderated quasi-dispersion: variance of the estimate, relative to that at the trend.
        test
            ``ql``.
        reason
            Why there is no p-value: ``all zero``. Empty if there is one.

    Raises
    ------
    TypeError
        If `contrast` is of another type.
    ValueError
        If the data are not valid, or lack the column of the default offset. If the formula leaves
        no degrees of freedom to estimate dispersions. If `contrast` names an unknown factor, level
        or coefficient, or if the design does not determine it. If fewer than ten genes have counts.

    See Also
    --------
    sc_glm.adata.pseudobulk : Sums of the cells of each donor.
    wald_test : With ``kind="cluster"``, cells are tested with donors as groups.

    Notes
    -----
    The test is a relative of the quasi-likelihood F tests of edgeR (Lund et al. 2012, Statistical
    Applications in Genetics and Molecular Biology 11(5); Chen, Lun and Smyth 2016, F1000Research 5:
    1438) and glmGamPoi (Ahlmann-Eltze and Huber 2020, Bioinformatics 36: 5701). In these, the
    variance of a gene is that of a trend of dispersions, times a quasi-dispersion with an inverse
    chi-squared prior. Here, the dispersion :math:`\varphi` itself differs by gene, and its prior
    has any shape. For normal data and an inverse chi-squared prior, the test would be limma's
    moderated t test.

    With the likelihood ratio :math:`\Lambda_\varphi` at the overdispersion :math:`\varphi` and
    :math:`q` constraints, the p-value is

    .. math::

       \sum_\varphi P(\varphi \mid y) \;
       P\left(\chi^2_q > \Lambda_\varphi / (1 + \epsilon_\varphi / q)\right),

    where :math:`\epsilon_\varphi` is Bartlett's correction for few samples (Lawley 1956,
    Biometrika 43: 295). The posterior :math:`P(\varphi \mid y)` is on a grid from 0.0001 to 20.
    The likelihood is the profile likelihood with the adjustment of Cox and Reid. The prior is the
    nonparametric maximum-likelihood estimate over all genes: 200 steps of the EM algorithm from a
    uniform distribution. It depends on the mean, by interpolation between up to six means.

    All samples have the same dispersion. That of a sum is larger if it has very few cells.

    The default offset is the logarithm of all counts. A few genes with most of the counts make it
    a poor measure of depth, and other genes then seem to change with them. Give an offset of
    another kind in this case, such as summed size factors.

    Rejections of true hypotheses are measured in :doc:`/calibration`.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import quasi_likelihood_test
    >>> data = make_counts(2000, 100, preset="donors", random_state=0)
    >>> donor = data.obs["donor"]
    >>> sums = data.counts.groupby(donor, observed=True).sum()
    >>> obs = data.obs.groupby(donor, observed=True)[["condition"]].first()
    >>> obs["log_depth"] = np.log(sums.sum(axis=1))
    >>> contrast = ("condition", "case", "control")
    >>> test = quasi_likelihood_test(obs, "~ condition", contrast, y=sums)
    >>> test.reset_index()[["gene", "log2_fold_change", "statistic", "p_value"]].head(3).round(2)
         gene  log2_fold_change  statistic  p_value
    0  gene_0              0.55       1.42     0.24
    1  gene_1             -0.00       0.00     0.99
    2  gene_2              0.61       2.05     0.16
    """
    question = _Question.of(pseudobulk, formula, contrast, y, offset)
    counts, n_genes = question.counts, question.counts.n_genes
    scaled = np.exp(question.samples.offset.mean() - question.samples.offset)
    base_mean = np.asarray(counts.by_column.T @ scaled).ravel() / len(scaled)
    known = base_mean > 0
    if known.sum() < _MIN_GENES:
        raise ValueError(
            f"A moderated dispersion needs at least {_MIN_GENES} genes with counts; of these "
            f"{n_genes} genes, {known.sum()} have some."
        )
    blocks = list(question.blocks(known))
    profiles = _Profiles(*map(np.concatenate, zip(*map(question.profiles, blocks), strict=True)))
    posterior = posterior_dispersions(profiles.adjusted, base_mean[known])
    moderated = _moderate(profiles, posterior, question.df)
    ends = np.cumsum([0] + [len(block.counts) for block in blocks])
    effects = [
        question.effects(block, moderated["overdispersion"][i:j])
        for block, i, j in zip(blocks, ends, ends[1:], strict=False)
    ]
    estimate, error = map(np.concatenate, zip(*effects, strict=True))
    p_values = p_value_columns(moderated["log_p_value"])
    columns = {
        "log2_fold_change": estimate / _LOG_2,
        "standard_error": error / _LOG_2,
        "statistic": moderated["statistic"],
        "df": np.full(len(estimate), question.df),
        "df_denominator": moderated["df_denominator"],
        **p_values,
        "p_adjusted": adjust_p_values(p_values["p_value"]),
        **{name: moderated[name] for name in _DISPERSIONS},
    }
    table = pd.DataFrame({"base_mean": base_mean}, index=pd.Index(counts.names, name="gene"))
    for name, values in columns.items():
        table[name] = np.nan
        table.loc[known, name] = values
    table["df"] = question.df
    table["test"] = "ql"
    table["reason"] = np.where(known, "", str(Status.ALL_ZERO))
    return table


class _Profiles(NamedTuple):
    """Values at each dispersion of the grid, (n_genes, n_grid).

    Attributes
    ----------
    adjusted : ndarray
        Profile log-likelihood with the adjustment of Cox and Reid.
    ratio : ndarray
        Likelihood ratio, with Bartlett's correction.
    pearson : ndarray
        Pearson's statistic divided by its expectation.
    variance : ndarray
        Variance of the estimate if the hypothesis is true.
    """

    adjusted: FloatArray
    ratio: FloatArray
    pearson: FloatArray
    variance: FloatArray


@dataclass(frozen=True)
class _Question:
    """Sums with a hypothesis about the coefficients of their mean.

    Attributes
    ----------
    counts : CountMatrix of shape (n_samples, n_genes)
    samples : Samples
        Without genes; the design of the alternative.
    to_coef : ndarray of shape (n_columns, n_coef)
        From coefficients of this design to those of the formula.
    contrast : Contrast
        In the coefficients of the formula.
    columns : ndarray of shape (n_samples, n_columns)
        Design of the formula.
    """

    counts: CountMatrix
    samples: Samples
    to_coef: FloatArray
    contrast: Contrast
    columns: FloatArray

    @classmethod
    def of(
        cls, pseudobulk: Any, formula: str, contrast: Any, y: Any, offset: str | None
    ) -> _Question:
        """Check the arguments."""
        obs, counts = _sums(pseudobulk, y)
        if offset == _LOG_DEPTH and offset not in obs:
            raise ValueError(
                f"pseudobulk has no column {offset!r}, the default offset, which "
                "sc_glm.adata.pseudobulk writes to its sums of cells. Give it the sums, or name "
                "another offset."
            )
        model = make_pipeline(FormulaTransformer(formula, offset=offset), NegBinRegressor())
        ones = np.ones(len(obs))  # a gene, with which the formula and contrasts of a model are read
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = FittedData.of(model.fit(obs, ones), obs, ones)
        _, designs = fitted.counts_and_designs(ones)
        null_space = designs.parts[MEAN].null
        reader = ContrastReader(fitted, ModelFormula.of(fitted, model, obs), MEAN, null_space, ones)
        if isinstance(contrast, Mapping):
            raise TypeError("quasi_likelihood_test takes one contrast, not a dict.")
        found = reader.read(contrast)
        if found.levels is not None:
            raise ValueError(
                "The mean of several other levels is no combination of coefficients. Compare two "
                "levels, or give a vector with a weight for each coefficient."
            )
        if null_space.not_estimable(found.matrix).any():
            raise ValueError(
                f"The samples do not determine the contrast {contrast!r}: columns of the design "
                f"{formula!r} depend on each other."
            )
        columns = fitted.designs[MEAN]
        design, to_coef = orthonormal(columns)
        samples = Samples(np.zeros((0, len(obs))), design, fitted.offset)
        if samples.df < 1:
            raise ValueError(
                f"The formula {formula!r} has {samples.n_coef} coefficients for {len(obs)} "
                "samples, which leaves no degrees of freedom to estimate dispersions. More samples "
                "or a smaller formula are needed."
            )
        return cls(counts, samples, to_coef, found, columns)

    @property
    def df(self) -> int:
        """Number of constraints."""
        return self.contrast.n_constraints

    @property
    def matrix(self) -> FloatArray:
        """The contrast in coefficients of the orthonormal design."""
        return self.contrast.matrix @ self.to_coef

    def blocks(self, known: NDArray[np.bool_]) -> Iterator[Samples]:
        """Yield samples with some of the genes that have counts."""
        step = max(1, _BLOCK_ENTRIES // len(self.counts))
        for first in range(0, len(known), step):
            genes = slice(first, min(first + step, len(known)))
            counts = np.asarray(self.counts.dense(genes), dtype=np.float64).T[known[genes]]
            if len(counts):
                yield replace(self.samples, counts=np.ascontiguousarray(counts))

    def profiles(self, block: Samples) -> _Profiles:
        """Fit both models at all dispersions."""
        matrix = self.matrix
        free = scipy.linalg.null_space(matrix)
        shift = block.design @ np.linalg.pinv(matrix) @ self.contrast.right_hand_side
        null = block.with_design(block.design @ free, shift)
        shifted = block.with_design(block.design, shift)
        coef, null_coef = block.start(), null.start()
        nodes = np.linspace(0, len(LOG_OVERDISPERSION) - 1, _BARTLETT_NODES).round().astype(int)
        found: list[list[FloatArray]] = []
        corrections = []
        for number, log_overdispersion in enumerate(LOG_OVERDISPERSION):
            phi = np.full(len(coef), np.exp(log_overdispersion))
            coef, null_coef = block.fit(phi, coef), null.fit(phi, null_coef)
            full, smaller = block.at(coef, phi), null.at(null_coef, phi)
            at_null = shifted.at(null_coef @ free.T, phi)
            value = block.log_likelihood(full, phi)
            ratio = 2 * (value - null.log_likelihood(smaller, phi))
            found.append(
                [
                    value - full.log_determinant() / 2,
                    np.maximum(ratio, 0.0),
                    _pearson_ratio(block, full, phi),
                    np.linalg.det(at_null.variance(matrix)) ** (1 / self.df),
                ]
            )
            if number in nodes:
                excess = lawley_epsilon(block.design, at_null, phi)
                excess -= lawley_epsilon(null.design, smaller, phi)
                corrections.append(np.clip(excess / self.df, 0.0, _MAX_CORRECTION))
        adjusted, ratio, pearson, variance = (np.stack(x, 1) for x in zip(*found, strict=True))
        weights = np.stack([np.interp(range(len(found)), nodes, e) for e in np.eye(len(nodes))])
        return _Profiles(
            adjusted, ratio / (1 + np.stack(corrections, 1) @ weights), pearson, variance
        )

    def effects(self, block: Samples, overdispersion: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return estimates and standard errors at moderated dispersions, natural logarithms."""
        coef = block.fit(overdispersion, block.start())
        if self.df > 1:
            tested = self.contrast.matrix.any(axis=0)
            of_columns = coef @ self.to_coef[tested].T
            return np.ptp(of_columns @ self.columns[:, tested].T, axis=1), np.full(
                len(coef), np.nan
            )
        estimate = coef @ self.matrix[0] - self.contrast.right_hand_side[0]
        variance = block.at(coef, overdispersion).variance(self.matrix)[:, 0, 0]
        infinite = variance > _INFINITE_VARIANCE
        estimate = np.where(infinite, np.copysign(np.inf, estimate), estimate)
        return estimate, np.where(infinite, np.nan, np.sqrt(variance))


def _sums(pseudobulk: Any, y: Any) -> tuple[pd.DataFrame, CountMatrix]:
    """Return covariates and counts of samples."""
    if hasattr(pseudobulk, "obs") and hasattr(pseudobulk, "var_names"):
        if y is not None:
            raise ValueError("pseudobulk is an AnnData, whose X has the sums: y must be None.")
        names = np.asarray(pseudobulk.var_names, dtype=object)
        counts = CountMatrix.of(pseudobulk.X, n_cells=pseudobulk.n_obs, names=names)
        return pd.DataFrame(pseudobulk.obs), counts
    obs = as_pandas(pseudobulk)
    if not isinstance(obs, pd.DataFrame):
        raise TypeError(
            "pseudobulk must be an AnnData from sc_glm.adata.pseudobulk, or a DataFrame with a row "
            f"for each sample and the sums as y=, not {type(pseudobulk).__name__}."
        )
    if y is None:
        raise ValueError("pseudobulk is a frame of covariates: give the sums as y=.")
    check_same_order(obs, y, "y", of="pseudobulk")
    return obs, CountMatrix.of(y, n_cells=len(obs))


def _pearson_ratio(samples: Samples, fit: Fit, overdispersion: FloatArray) -> FloatArray:
    """Return Pearson's statistic divided by its expectation.

    A fitted mean follows its count, and so does the variance at it. This makes the statistic
    smaller by ``1 + overdispersion * leverage``: exactly so for samples of equal depth that have
    one mean, whose counts given their sum are Dirichlet-multinomial.
    """
    solved = np.linalg.solve(fit.information, samples.design.T[None])
    leverage = fit.weight * (samples.design.T * solved).sum(axis=1)
    squares = (samples.counts / fit.mean - 1) ** 2 * fit.weight
    return (squares * (1 + overdispersion[:, None] * leverage)).sum(axis=1) / samples.df


def _moderate(profiles: _Profiles, posterior: Posterior, df: int) -> dict[str, FloatArray]:
    """Average over the dispersions that are possible given the counts."""
    ratio, precision = profiles.ratio / df, 1 / profiles.variance
    mean_precision = posterior.mean(precision)
    variance = posterior.mean((precision - mean_precision[:, None]) ** 2)
    with np.errstate(divide="ignore"):
        df_denominator = 2 * mean_precision**2 / variance
    at_trend = _interpolation(posterior.trend)
    return {
        "statistic": posterior.mean(ratio),
        "log_p_value": logsumexp(posterior.log_weight + log_f_tail(ratio, df, np.inf), axis=1),
        "df_denominator": df_denominator,
        "overdispersion_trend": np.exp(posterior.trend),
        "overdispersion": np.exp(posterior.mean(LOG_OVERDISPERSION)),
        "quasi_dispersion_raw": (at_trend * profiles.pearson).sum(axis=1),
        "quasi_dispersion": 1 / (mean_precision * (at_trend * profiles.variance).sum(axis=1)),
    }


def _interpolation(log_overdispersion: FloatArray) -> FloatArray:
    """Return weights of the grid that interpolate linearly, (n_genes, n_grid)."""
    step = LOG_OVERDISPERSION[1] - LOG_OVERDISPERSION[0]
    distance = np.abs(log_overdispersion[:, None] - LOG_OVERDISPERSION) / step
    return np.maximum(0.0, 1.0 - distance)
