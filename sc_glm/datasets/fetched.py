"""Real counts: from a file of the user's, or downloaded once, and checked in both cases."""

from __future__ import annotations

import hashlib
import os
import tarfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.io import mmread

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    PathLike: TypeAlias = str | os.PathLike[str]

__all__ = ["fetch_pancreas", "fetch_pbmc3k"]

_FOLDER, _CACHE = "SC_GLM_DATA", "SC_GLM_CACHE"  # environment variables


@dataclass(frozen=True)
class _Contents:
    """What makes a set of counts this one and no other.

    Attributes
    ----------
    shape : tuple of int
        Numbers of cells and genes.
    cells, genes : str
        SHA-256 of the names, one per line.
    counts : str
        SHA-256 of a CSR matrix in order and without stored zeros: data, indices and index
        pointers, each as 4-byte little-endian integers.
    columns : tuple of str
        Covariates of the cells.
    """

    shape: tuple[int, int]
    cells: str
    genes: str
    counts: str
    columns: tuple[str, ...]

    def difference(self, adata: AnnData) -> str | None:
        """Return in words what is not as it should be, if anything."""
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
        wrong = [what for what, (own, expected) in found.items() if own != expected]
        return f"other {' and '.join(wrong)}" if wrong else None


@dataclass(frozen=True)
class _Set:
    """A set: its file, what that holds, and where its counts are published.

    Attributes
    ----------
    file : str
        Name of the file.
    contents : _Contents
    url : str
        Address of the published file.
    sha256 : str or None
        Of that file, where somebody published it.
    convert : callable
        Makes an AnnData of that file.
    """

    file: str
    contents: _Contents
    url: str
    sha256: str | None
    convert: Callable[[Path], AnnData]


def names_hash(names: pd.Index) -> str:
    """Return the SHA-256 of names, one per line."""
    return hashlib.sha256("\n".join(map(str, names)).encode()).hexdigest()


def counts_hash(X: Any) -> str | None:
    """Return the SHA-256 of counts as :class:`_Contents` has it; None if they are none."""
    if X is None:  # AnnData may have none
        return None
    counts = sp.csr_array(X, copy=True)
    largest = np.iinfo(np.int32).max
    if not (np.array_equal(counts.data, np.round(counts.data)) and (counts.data <= largest).all()):
        return None
    counts.sum_duplicates()
    counts.eliminate_zeros()
    arrays = (counts.data, counts.indices, counts.indptr)
    return hashlib.sha256(b"".join(array.astype("<i4").tobytes() for array in arrays)).hexdigest()


def fetch_pancreas(n_genes: int = 100, *, path: PathLike | None = None) -> AnnData:
    """Return cells of the developing pancreas along the way from progenitor to beta cell.

    2087 cells of mice at embryonic day 15.5 [1]_ in the selection that scDesign3 [2]_ has as its
    example: four cell types, a pseudotime, and highly variable genes.

    Parameters
    ----------
    n_genes : {100, 1000}, default=100
        How many genes: all that scDesign3 selected, or its first hundred.
    path : str or path-like, default=None
        The file, ``pancreas_100.h5ad`` or ``pancreas_1000.h5ad``, or its folder. None: it is
        looked for in the folder that the environment variable ``SC_GLM_DATA`` names, then in
        the cache; if it is in neither, it is downloaded.

    Returns
    -------
    AnnData of 2087 cells x n_genes genes
        The counts in ``X`` and in ``layers["counts"]``, CSR of int32. ``obs`` has ``cell_type``,
        ``pseudotime`` (from 0 to 1), ``sizeFactor`` (1 on average), ``total_counts`` (of all
        genes of the genome), ``clusters_coarse``, ``clusters``, ``S_score`` and ``G2M_score``.

    Raises
    ------
    ValueError
        If `n_genes` is another number, or what was found or downloaded holds something else than
        these counts; it says what differs.
    FileNotFoundError
        If there is no such file at `path`.
    ImportError
        If a download is needed and pooch is not installed.
    OSError
        If the download fails.

    Notes
    -----
    The download is from the repository of scDesign3Py. No checksum of that file is published:
    its counts and the names of cells and genes are compared with those known here, the other
    columns of ``obs`` are as the file has them, and ``total_counts`` follows from ``sizeFactor``.
    The cache is that of pooch for ``sc_glm``, or the folder that the environment variable
    ``SC_GLM_CACHE`` names. ``layers["logcounts"]`` and ``obsm``, which other copies of these data
    have, are not in a downloaded set.

    References
    ----------
    .. [1] A. Bastidas-Ponce et al. (2019), "Comprehensive single cell mRNA profiling reveals a
       detailed roadmap for pancreatic endocrinogenesis", Development 146:dev173849. GSE132188.
    .. [2] D. Song et al. (2024), "scDesign3 generates realistic in silico data for multimodal
       single-cell and spatial omics", Nature Biotechnology 42:247-252.

    Examples
    --------
    >>> from sc_glm.datasets import fetch_pancreas
    >>> adata = fetch_pancreas()  # doctest: +SKIP
    >>> adata.shape  # doctest: +SKIP
    (2087, 100)
    """
    if n_genes not in (100, 1000):
        raise ValueError(f"n_genes must be 100 or 1000, got {n_genes!r}.")
    adata = _fetch(_PANCREAS[n_genes], path)
    adata.layers["counts"] = adata.X.copy()
    return adata


def fetch_pbmc3k(*, path: PathLike | None = None) -> AnnData:
    """Return 2700 blood cells of a healthy donor, with all genes of the genome.

    The mononuclear cells of 10x Genomics [1]_ that most tutorials of single-cell analysis use,
    as they were counted: no cell and no gene is left out.

    Parameters
    ----------
    path : str or path-like, default=None
        The file ``pbmc3k_raw.h5ad``, or its folder. None: it is looked for in the folder that the
        environment variable ``SC_GLM_DATA`` names, then in the cache; if it is in neither, it is
        downloaded.

    Returns
    -------
    AnnData of 2700 cells x 32738 genes
        The counts in ``X``, CSR of int32. ``obs`` has ``total_counts``, ``n_genes`` (of positive
        count), ``percent_mito`` (counts of mitochondrial genes in 100) and ``cell_type``: B,
        Monocyte, NK or T, as markers tell (see Notes). A file of the user's may have more columns,
        such as the published cell types ``seurat_annotations``. No source of these with a checksum
        is known that Python can read, so that a downloaded set is without them.

    Raises
    ------
    ValueError
        If what was found or downloaded holds something else than these counts; it says what
        differs.
    FileNotFoundError
        If there is no such file at `path`.
    ImportError
        If a download is needed and pooch is not installed.
    OSError
        If the download fails, or its checksum is another.

    Notes
    -----
    The download is from 10x Genomics, checked by its SHA-256. The cache is that of pooch for
    ``sc_glm``, or the folder that the environment variable ``SC_GLM_CACHE`` names. The second of
    two genes of one symbol has ".1" after its name.

    ``cell_type`` is the type whose three markers are highest: logarithms of their shares in a
    cell's counts, summed, in units of the 95 % quantile over cells. It is what is published for
    97 % of the labelled cells, if all T cells are one type, and dendritic cells are monocytes.
    The few cells that have none of the markers are taken for T cells.

    References
    ----------
    .. [1] 10x Genomics (2016), "3k PBMCs from a Healthy Donor", Cell Ranger 1.1.0.

    Examples
    --------
    >>> from sc_glm.datasets import fetch_pbmc3k
    >>> adata = fetch_pbmc3k()  # doctest: +SKIP
    >>> adata.shape  # doctest: +SKIP
    (2700, 32738)
    """
    adata = _fetch(_PBMC3K, path)
    adata.obs["cell_type"] = _type_by_markers(adata)
    return adata


def _type_by_markers(adata: AnnData) -> pd.Series:
    scores = {}
    for cell_type, markers in _MARKERS.items():
        shares = adata[:, markers].to_df().div(adata.obs["total_counts"], axis=0)
        score = np.log1p(1e4 * shares).sum(axis=1)
        scores[cell_type] = score / score.quantile(0.95)
    return pd.DataFrame(scores).idxmax(axis=1).astype("category")


def _fetch(wanted: _Set, path: PathLike | None) -> AnnData:
    if path is not None:
        file = Path(path)
        file = file / wanted.file if file.is_dir() else file
        if not file.is_file():
            raise FileNotFoundError(f"path={os.fspath(path)!r}: there is no file {str(file)!r}.")
        return _read(file, wanted.contents)
    folder = os.environ.get(_FOLDER)
    if folder and (Path(folder) / wanted.file).is_file():
        return _read(Path(folder) / wanted.file, wanted.contents)
    return _cached(wanted)


def _read(file: Path, contents: _Contents) -> AnnData:
    from anndata import read_h5ad  # noqa: PLC0415 - only who wants these data waits for it

    try:
        adata = read_h5ad(file)
    except (OSError, KeyError) as error:
        raise ValueError(f"{str(file)!r} cannot be read as an h5ad file: {error}") from error
    difference = contents.difference(adata)
    if difference is not None:
        raise ValueError(
            f"{str(file)!r} does not hold the data that it is named for: {difference}."
        )
    adata.X = sp.csr_matrix(adata.X, dtype=np.int32)  # however the file has them
    return adata


def _cached(wanted: _Set) -> AnnData:
    """Return a set from the cache, to which it is downloaded first if need be."""
    by_hand = (
        f"A copy of {wanted.file} can be given by path=, or lie in the folder that the "
        f"environment variable {_FOLDER} names."
    )
    try:
        import pooch  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(
            f"{wanted.file} would be downloaded, which needs pooch: "
            f'pip install "sc_glm[datasets]". {by_hand}'
        ) from error

    published = wanted.url.rsplit("/", 1)[-1]
    cache = pooch.create(
        path=pooch.os_cache("sc_glm"),
        base_url="",
        env=_CACHE,
        registry={published: wanted.sha256},
        urls={published: wanted.url},
    )
    file = cache.abspath / wanted.file
    if file.is_file():
        return _read(file, wanted.contents)
    try:
        source = Path(cache.fetch(published))
    except (OSError, ValueError) as error:  # no network, no such page; another checksum
        raise OSError(
            f"{wanted.file} could not be downloaded from {wanted.url}: {error} {by_hand}"
        ) from error
    try:
        adata = _converted(wanted, source)
    except ValueError as error:
        raise ValueError(f"{error} Nothing of it is kept. {by_hand}") from error
    finally:
        source.unlink(missing_ok=True)
    # A run that ends here, or another one at the same time, leaves no half of a file.
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    adata.write_h5ad(part, compression="gzip")
    part.replace(file)
    return adata


def _converted(wanted: _Set, source: Path) -> AnnData:
    """Return what a published file holds, if it is what it should be."""
    try:
        adata = wanted.convert(source)
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise ValueError(f"What {wanted.url} sends cannot be read: {error!r}.") from error
    difference = wanted.contents.difference(adata)
    if difference is not None:
        raise ValueError(f"What {wanted.url} sends is not this set: {difference}.")
    adata.uns["source"] = wanted.url
    return adata


def _pancreas(n_genes: int) -> Callable[[Path], AnnData]:
    """Return what makes a set of the first genes in scDesign3Py's file."""

    def convert(source: Path) -> AnnData:
        from anndata import AnnData, read_h5ad  # noqa: PLC0415 - as above

        published = read_h5ad(source)[:, :n_genes]
        obs = published.obs.copy()
        obs["total_counts"] = np.rint(_MEAN_TOTAL * obs["sizeFactor"]).astype(np.int32)
        counts = sp.csr_matrix(published.layers.get("counts", published.X), dtype=np.int32)
        return AnnData(counts, obs=obs, var=pd.DataFrame(index=published.var_names))

    return convert


def _pbmc3k(source: Path) -> AnnData:
    """Make a set of 10x Genomics' archive of text files."""
    from anndata import AnnData  # noqa: PLC0415 - as above

    with tarfile.open(source) as archive:
        files = {Path(member.name).name: member for member in archive if member.isfile()}

        def text(name: str) -> Any:
            return archive.extractfile(files[name])

        with warnings.catch_warnings():
            # SciPy tells that it will return an array one day, which is as good.
            warnings.filterwarnings("ignore", ".*spmatrix", DeprecationWarning)
            counts = sp.csr_matrix(mmread(text("matrix.mtx")).T, dtype=np.int32)
        symbols = pd.read_csv(text("genes.tsv"), sep="\t", header=None, keep_default_na=False)[1]
        cells = pd.read_csv(text("barcodes.tsv"), header=None)[0]
    repeated = symbols.groupby(symbols).cumcount()
    names = symbols.where(repeated == 0, symbols + "." + repeated.astype(str))
    total = counts.sum(axis=1).A1
    mitochondrial = counts[:, names.str.startswith("MT-").to_numpy()].sum(axis=1).A1
    obs = pd.DataFrame(
        {
            "total_counts": total.astype(np.int32),
            "n_genes": counts.getnnz(axis=1).astype(np.int32),
            "percent_mito": (100 * mitochondrial / total).astype(np.float32),
        },
        index=cells.to_numpy(),
    )
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=names.to_numpy()))


_MARKERS = {
    "T": ["CD3D", "CD3E", "IL7R"],  # the first, for cells without any marker
    "B": ["CD79A", "CD79B", "MS4A1"],
    "Monocyte": ["CST3", "FCER1G", "LYZ"],
    "NK": ["GNLY", "GZMB", "PRF1"],
}

_MEAN_TOTAL = 6093.345951126018  # counts of a pancreatic cell, of which sizeFactor is a multiple

# The commit is that of the copy whose contents are known here.
_SCDESIGN3PY = "https://github.com/JSB-UCLA/scDesign3Py/raw/6af2ffab/docs/source/data/PANCREAS.h5ad"
_PANCREAS_CELLS = "e12f947055e3cb51a1d1807a139f2dc63d1397f345042d6928462565a3cd5ea3"
_PANCREAS_OBS = ("cell_type", "pseudotime", "sizeFactor", "total_counts")

_PANCREAS = {
    100: _Set(
        file="pancreas_100.h5ad",
        contents=_Contents(
            shape=(2087, 100),
            cells=_PANCREAS_CELLS,
            genes="fdc7638ca9a2ac920314524774de4c839634501d0f4edc3e9470ab1c0dffdd29",
            counts="1b6d51c6e89787284925957314b44f049d8f7a900b4b99a5a5f300e510d6428e",
            columns=_PANCREAS_OBS,
        ),
        url=_SCDESIGN3PY,
        sha256=None,
        convert=_pancreas(100),
    ),
    1000: _Set(
        file="pancreas_1000.h5ad",
        contents=_Contents(
            shape=(2087, 1000),
            cells=_PANCREAS_CELLS,
            genes="a744d4a42bf08cbdafb412978cfb760c571867880a0b43f2af6c4d26a400bc21",
            counts="93b413cc79461b72429b2201957f9c0c71ea0c6ceb50da1b0d2f5f7042efef83",
            columns=_PANCREAS_OBS,
        ),
        url=_SCDESIGN3PY,
        sha256=None,
        convert=_pancreas(1000),
    ),
}

_PBMC3K = _Set(
    file="pbmc3k_raw.h5ad",
    contents=_Contents(
        shape=(2700, 32738),
        cells="c68847ef4fbf23a8bb3dd3d29692fdd4e0cdb4e979caabd355395fe4549b5316",
        genes="e8dee78e90607995052d94736e15c6e018fbef12bfdee4911f9e32a8e8342119",
        counts="158e4b640920fa6be803fdda7bff34f597b33cc5511a6ca4bb560178cf1cdf5e",
        columns=("total_counts", "n_genes", "percent_mito"),
    ),
    url=(
        "https://cf.10xgenomics.com/samples/cell-exp/1.1.0/pbmc3k/"
        "pbmc3k_filtered_gene_bc_matrices.tar.gz"
    ),
    sha256="847d6ebd9a1ec9a768f2be7e40ca42cbfe75ebeb6d76a4c24167041699dc28b5",
    convert=_pbmc3k,
)
