"""What notebooks show of a fitted model, below scikit-learn's diagram of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from sc_glm._solver.status import count_statuses

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NotebookMixin", "notebook_html", "status_table"]

_NAMED = 5  # genes of a status


class NotebookMixin:
    """Adds the ``_notebook_html`` of an estimator to scikit-learn's diagram.

    It stands first among the bases of an estimator. ``display="text"`` of scikit-learn's
    configuration switches both off.
    """

    def _repr_html_inner(self) -> str:
        return super()._repr_html_inner() + notebook_html(self)  # type: ignore[misc]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in bundle:
            bundle["text/html"] += notebook_html(self)
        return bundle


def notebook_html(estimator: Any) -> str:
    """Return what an estimator has to add to its diagram, which is empty for those of others."""
    own = getattr(estimator, "_notebook_html", None)
    return own() if own is not None else ""


def status_table(statuses: NDArray[np.object_], names: NDArray[np.object_], n_cells: int) -> str:
    """Return HTML that tells how genes' fits ended.

    Parameters
    ----------
    statuses, names : ndarray of str of shape (n_genes,)
    n_cells : int

    Returns
    -------
    str
        Numbers of cells and genes, and a table with a row for each status. It takes its colours
        from the page, and escapes names.
    """
    rows = [
        (str(status), number, status.meaning, named if status.needs_warning else "")
        for status, number, named in count_statuses(statuses, names, _NAMED)
    ]
    table = pd.DataFrame(rows, columns=["status", "genes", "meaning", "such as"])
    if not table["such as"].any():
        del table["such as"]
    html = table.to_html(index=False, border=0, justify="left")
    return f"<div><p>Cells: {n_cells}, genes: {len(names)}</p>{html}</div>"
