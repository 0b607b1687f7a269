"""Files of data sets: read from a local folder or downloaded once, and checked in both cases."""

from __future__ import annotations

import hashlib
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from anndata import AnnData

    PathLike: TypeAlias = str | os.PathLike[str]

__all__ = ["Dataset", "Fingerprint", "PathLike", "counts_hash", "fetch", "names_hash"]

_DATA_VARIABLE, _CACHE_VARIABLE = "SC_GLM_DATA", "SC_GLM_CACHE"  # names of environment variables


@dataclass(frozen=True)
class Fingerprint:
    """Contents by which a data set is recognized.

    Attributes
    ----------
    shape : tuple of int
        Numbers of cells and genes.
    cells, genes : str
        SHA-256 of the names, one per line.
    counts : str
        SHA-256 of a CSR matrix with sorted indices and without stored zeros: data, indices and
        index pointers, each as 4-byte little-endian integers.
    columns : tuple of str
        Covariates of the cells.
    """

    shape: tuple[int, int]
    cells: str
    genes: str
    counts: str
    columns: tuple[str, ...]

    def difference(self, adata: AnnData) -> str | None:
        """Return the first difference from a data set as a message, or None if there is none."""
        if adata.shape != self.shape:
            n_cells, n_genes = self.shape
            return f"{adata.n_obs} cells x {adata.n_vars} genes, not {n_cells} x {n_genes}"
        missing = [column for column in self.columns if column not in adata.obs]
        if missing:
            return f"no column {', '.join(map(repr, missing))} in obs"
        found = {
            "cells' names": (names_hash(adata.obs_names), self.cells),
            "genes' names": (names_hash(adata.var_names), self.genes),
            "counts in X": (counts_hash(adata.X), self.counts),
        }
        differing = [name for name, (actual, expected) in found.items() if actual != expected]
        return f"{' and '.join(differing)} differ" if differing else None


@dataclass(frozen=True)
class Dataset:
    """A data set: its file, the contents of the file, and the source of its counts.

    Attributes
    ----------
    file : str
        Name of the file.
    fingerprint : Fingerprint
        Contents of the file.
    url : str
        Address of the published file.
    sha256 : str or None
        Checksum of the published file, if it is published.
    convert : callable
        Function that reads the published file into an AnnData.
    """

    file: str
    fingerprint: Fingerprint
    url: str
    sha256: str | None
    convert: Callable[[Path], AnnData]


def names_hash(names: pd.Index) -> str:
    """Return the SHA-256 of names, one per line."""
    return hashlib.sha256("\n".join(map(str, names)).encode()).hexdigest()


def counts_hash(X: Any) -> str | None:
    """Return the SHA-256 of counts as in :class:`Fingerprint`, or None if they are not counts."""
    if X is None:  # an AnnData may lack X
        return None
    counts = sp.csr_array(X, copy=True)
    largest = np.iinfo(np.int32).max
    if not (np.array_equal(counts.data, np.round(counts.data)) and (counts.data <= largest).all()):
        return None
    counts.sum_duplicates()
    counts.eliminate_zeros()
    arrays = (counts.data, counts.indices, counts.indptr)
    return hashlib.sha256(b"".join(array.astype("<i4").tobytes() for array in arrays)).hexdigest()


def fetch(dataset: Dataset, path: PathLike | None) -> AnnData:
    """Return a data set from a file, or else from the folder of data, the cache or its source.

    Parameters
    ----------
    dataset : Dataset
        The data set, with its file, fingerprint and source.
    path : str, path-like or None
        The file or its folder. None leaves the choice to the environment.

    Returns
    -------
    AnnData
        With counts as CSR of int32.

    Raises
    ------
    ValueError
        If the file holds other data.
    FileNotFoundError
        If `path` has no such file.
    ImportError
        If a download is needed and pooch is not installed.
    OSError
        If the download fails.
    """
    if path is not None:
        file = Path(path)
        file = file / dataset.file if file.is_dir() else file
        if not file.is_file():
            raise FileNotFoundError(f"path={os.fspath(path)!r}: there is no file {str(file)!r}.")
        return _read_checked(file, dataset.fingerprint)
    folder = os.environ.get(_DATA_VARIABLE)
    if folder and (Path(folder) / dataset.file).is_file():
        return _read_checked(Path(folder) / dataset.file, dataset.fingerprint)
    return _load_or_download(dataset)


def _read_checked(file: Path, fingerprint: Fingerprint) -> AnnData:
    from anndata import read_h5ad  # noqa: PLC0415 - its import is slow

    try:
        adata = read_h5ad(file)
    except (OSError, KeyError) as error:
        raise ValueError(f"{str(file)!r} cannot be read as an h5ad file: {error}") from error
    difference = fingerprint.difference(adata)
    if difference is not None:
        raise ValueError(f"{str(file)!r} does not hold the expected data: {difference}.")
    adata.X = sp.csr_matrix(
        adata.X, dtype=np.int32
    )  # in a file they may be dense or of another dtype
    return adata


def _load_or_download(dataset: Dataset) -> AnnData:
    """Return a data set from the cache, after downloading it if needed."""
    by_hand = (
        f"You can also give a copy of {dataset.file} by path=, or put it into the folder in the "
        f"environment variable {_DATA_VARIABLE}."
    )
    try:
        import pooch  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ImportError(
            f'The download of {dataset.file} needs pooch: pip install "sc_glm[datasets]". {by_hand}'
        ) from error

    published = dataset.url.rsplit("/", 1)[-1]
    cache = pooch.create(
        path=pooch.os_cache("sc_glm"),
        base_url="",
        env=_CACHE_VARIABLE,
        registry={published: dataset.sha256},
        urls={published: dataset.url},
    )
    file = cache.abspath / dataset.file
    if file.is_file():
        return _read_checked(file, dataset.fingerprint)
    try:
        source = Path(cache.fetch(published))
    except (OSError, ValueError) as error:  # no network, no such page, another checksum
        raise OSError(
            f"{dataset.file} could not be downloaded from {dataset.url}: {error} {by_hand}"
        ) from error
    try:
        adata = _converted_dataset(dataset, source)
    except ValueError as error:
        raise ValueError(f"{error} The download was deleted. {by_hand}") from error
    finally:
        source.unlink(missing_ok=True)
    # A process that is killed here, or that runs at the same time, leaves no incomplete file.
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    adata.write_h5ad(part, compression="gzip")
    part.replace(file)
    return adata


def _converted_dataset(dataset: Dataset, source: Path) -> AnnData:
    """Return the contents of a published file, if they are the expected ones."""
    try:
        adata = dataset.convert(source)
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise ValueError(f"The file from {dataset.url} cannot be read: {error!r}.") from error
    difference = dataset.fingerprint.difference(adata)
    if difference is not None:
        raise ValueError(
            f"The file from {dataset.url} does not hold the expected data: {difference}."
        )
    adata.uns["source"] = dataset.url
    return adata
