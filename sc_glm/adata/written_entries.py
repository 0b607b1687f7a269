"""Checks before results are written to an AnnData, and what a view of another one needs."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anndata import ImplicitModificationWarning

from sc_glm.adata.reading import check_anndata


def check_writable(adata: Any, key_added: Any) -> None:
    """Raise an error if an AnnData cannot be written to, or not under this key."""
    if not isinstance(key_added, str) or not key_added:
        raise TypeError(f"key_added must be a string that is not empty, not {key_added!r}.")
    if "/" in key_added:
        raise ValueError(f"key_added={key_added!r}: files cannot hold a key with '/'.")
    if check_anndata(adata).is_view and adata.isbacked:
        raise ValueError(
            "A view of a backed AnnData cannot be written to: use its .to_memory() instead."
        )


@contextmanager
def writing_into_a_view() -> Iterator[None]:
    """Silence the warning that a view becomes an AnnData of its own, as the user asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        yield
