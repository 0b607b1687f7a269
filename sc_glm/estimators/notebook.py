"""HTML of a fitted model for notebooks, below scikit-learn's diagram of the estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from sc_glm._solver.status import count_statuses

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NotebookMixin", "notebook_html", "status_table"]

_MAX_GENES_NAMED = 5  # per status; more would make the table wide


class NotebookMixin:
    """Mixin that adds an estimator's ``_notebook_html`` to scikit-learn's diagram.

    It must be the first base of an estimator. ``sklearn.set_config(display="text")`` switches off
    the diagram and the addition.
    """

    def _repr_html_inner(self) -> str:
        return super()._repr_html_inner() + notebook_html(self)  # type: ignore[misc]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in bundle:
            bundle["text/html"] += notebook_html(self)
        return bundle


def notebook_html(estimator: Any) -> str:
    """Return the HTML that an estimator adds to its diagram; it is empty for other packages'."""
    method = getattr(estimator, "_notebook_html", None)
    return method() if method is not None else ""


def status_table(statuses: NDArray[np.object_], names: NDArray[np.object_], n_cells: int) -> str:
    """Return HTML that shows how the genes' fits ended.

    Parameters
    ----------
    statuses, names : ndarray of str of shape (n_genes,)
        Status of each gene's fit, and the gene's name.
    n_cells : int
        Number of cells of the fit.

    Returns
    -------
    str
        Numbers of cells and genes, and a table with a row for each status. Its colours are those
        of the page, and names are escaped.
    """
    rows = [
        (str(status), number, status.meaning, genes if status.needs_warning else "")
        for status, number, genes in count_statuses(statuses, names, _MAX_GENES_NAMED)
    ]
    table = pd.DataFrame(rows, columns=["status", "genes", "meaning", "such as"])
    if not table["such as"].any():
        del table["such as"]
    html = table.to_html(index=False, border=0, justify="left")
    return f"<div><p>Cells: {n_cells}, genes: {len(names)}</p>{html}</div>"
