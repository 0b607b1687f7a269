"""Real count data: found on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["fetch_pancreas", "fetch_pbmc3k"]


def fetch_pancreas(n_genes: int = 100, *, path: str | os.PathLike[str] | None = None) -> AnnData:
    """Return 2087 cells of the developing pancreas."""
    return _read(_found(f"pancreas_{n_genes}.h5ad", path))


def fetch_pbmc3k(*, path: str | os.PathLike[str] | None = None) -> AnnData:
    """Return 2700 blood cells."""
    return _read(_found("pbmc3k_raw.h5ad", path))


def _found(name: str, path: str | os.PathLike[str] | None) -> Path:
    return Path(path) if path is not None else Path(os.environ["SC_GLM_DATA"]) / name


def _read(path: Path) -> AnnData:
    import anndata  # noqa: PLC0415

    return anndata.read_h5ad(path)
