"""Histogram of p-values."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm.plots.axes import (
    DATA,
    MODEL,
    legend,
    line_style,
    panels,
    require_matplotlib,
    text_color,
    title,
    write_nothing_to_show,
)
from sc_glm.plots.contrasts import tests_of_contrast
from sc_glm.plots.docstring_entries import ENTRIES
from sc_glm.plots.gene_tests import names_and_columns

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from sc_glm.plots.axes import Axes

_LARGE = 0.5  # p-values above it are mostly those of genes without an effect


@documented(ENTRIES)
class PValueDisplay:
    """Histogram of p-values, with the heights that genes without an effect would have.

    P-values of genes without an effect are uniform, if the test is valid. Those of genes with an
    effect are a peak near zero on top of them. A hill elsewhere, or a slope towards one, means that
    the test is not valid, or that counts are too few for its p-values to be uniform.

    It is recommended to use :meth:`from_estimator`, or :meth:`from_table` if the tests are already
    computed.

    Parameters
    ----------
    p_value : array-like of shape (n_genes,)
        P-values; NaN for genes that were not tested.

    Attributes
    ----------
    null_fraction : float
        Estimate of the fraction of genes without an effect; NaN if no gene was tested.
    {ax_}
    {figure_}
    bars_ : matplotlib BarContainer
        The bars.
    uniform_ : matplotlib Line2D
        Expected height of the bars if no gene has an effect.
    null_ : matplotlib Line2D
        Expected height of the genes without an effect.

    Notes
    -----
    With m tests, the estimate is the number of p-values above 0.5, divided by m / 2, and at most 1
    (Storey 2002, Journal of the Royal Statistical Society B 64: 479). It is too large rather than
    too small if genes with an effect have large p-values, too.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm.plots import PValueDisplay
    >>> p_value = np.r_[np.full(40, 1e-4), (np.arange(60) + 0.5) / 60]
    >>> display = PValueDisplay(p_value=p_value).plot(n_bins=10)
    >>> display.null_fraction, int(display.bars_[0].get_height())
    (0.6, 46)
    """

    def __init__(self, *, p_value: ArrayLike) -> None:
        self.p_value = np.asarray(p_value, dtype=np.float64)
        tested = self.p_value[~np.isnan(self.p_value)]
        large = np.mean(tested > _LARGE) if len(tested) else np.nan
        self.null_fraction = float(np.minimum(large / (1.0 - _LARGE), 1.0))

    @classmethod
    @documented(ENTRIES)
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any = None,
        contrast: Any = None,
        *,
        kind: str = "observed",
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 20,
        ax: Axes | None = None,
        bar_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Test a contrast of each gene's coefficients, and draw the p-values.

        Parameters
        ----------
        {model}
        {X_of_fit}
        {y_of_fit}
        {contrast}
        {kind}
        {groups}
        {sample_weight_of_fit}
        {n_bins}
        {ax}
        {bar_kwargs}

        Returns
        -------
        PValueDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        {raises_contrast}
        {raises_n_bins}

        See Also
        --------
        {see_tests}
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        table = tests_of_contrast(
            model, X, y, contrast, kind=kind, groups=groups, sample_weight=sample_weight
        )
        return cls.from_table(table, n_bins=n_bins, ax=ax, bar_kwargs=bar_kwargs)

    @classmethod
    @documented(ENTRIES)
    def from_table(
        cls,
        table: pd.DataFrame,
        *,
        n_bins: int = 20,
        ax: Axes | None = None,
        bar_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the p-values of a table of tests.

        Parameters
        ----------
        {table}
            A column ``p_value`` is required.
        {n_bins}
        {ax}
        {bar_kwargs}

        Returns
        -------
        PValueDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        {raises_table}
        {raises_n_bins}
        """
        display = cls(p_value=names_and_columns(table, ["p_value"])["p_value"])
        return display.plot(ax, n_bins=n_bins, bar_kwargs=bar_kwargs)

    @documented(ENTRIES)
    def plot(
        self,
        ax: Axes | None = None,
        *,
        n_bins: int = 20,
        bar_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the histogram and the two lines.

        Parameters
        ----------
        {ax}
        {n_bins}
        {bar_kwargs}

        Returns
        -------
        PValueDisplay
            The display itself.

        Raises
        ------
        {raises_no_matplotlib}
        {raises_n_bins}
        """
        check_scalar(n_bins, "n_bins", Integral, min_val=2)
        (axes,) = panels(ax, f"{type(self).__name__}.plot")
        tested = self.p_value[~np.isnan(self.p_value)]
        heights, ends = np.histogram(tested, bins=n_bins, range=(0.0, 1.0))
        style = {"width": np.diff(ends), "align": "edge", "color": DATA} | (bar_kwargs or {})
        self.bars_ = axes.bar(ends[:-1], heights, **style)
        uniform = len(tested) / n_bins
        null = uniform * self.null_fraction if len(tested) else 0.0
        lines = (
            (uniform, text_color(axes), "--", "no gene with an effect"),
            (null, MODEL, "-", f"genes without an effect: {100 * self.null_fraction:.0f} %"),
        )
        self.uniform_, self.null_ = (
            axes.plot(
                [0.0, 1.0],
                [height, height],
                **line_style(None, color=color, linestyle=style, linewidth=1.2, label=label),
            )[0]
            for height, color, style, label in lines
        )
        axes.set(xlabel="p-value", ylabel="genes", xlim=(0.0, 1.0))
        untested = len(self.p_value) - len(tested)
        title(axes, f"{len(tested)} tests", f"{untested} untested" if untested else None)
        if len(tested):
            legend(axes)
        else:
            write_nothing_to_show(axes)
        self.ax_, self.figure_ = axes, axes.figure
        return self
