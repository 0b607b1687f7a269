"""Real counts: data sets, their sources and contents, and how their published files are read."""

from __future__ import annotations

import tarfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.io import mmread

from sc_glm._contract.docstrings import documented
from sc_glm.datasets.dataset_files import Dataset, Fingerprint, fetch

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from sc_glm.datasets.dataset_files import PathLike

__all__ = ["fetch_pancreas", "fetch_pbmc3k"]

_ENTRIES = {
    "errors_of_files": """
        FileNotFoundError
            If `path` has no such file.
        ImportError
            If a download is needed and pooch is not installed.
        OSError
            If the download fails, or has another checksum than the published one.
    """
}


@documented(_ENTRIES)
def fetch_pancreas(n_genes: int = 100, *, path: PathLike | None = None) -> AnnData:
    """Return cells of the developing pancreas, from progenitors to beta cells.

    The 2087 cells are from mice at embryonic day 15.5 [1]_, in the selection that scDesign3 [2]_
    uses as an example: four cell types, a pseudotime, and highly variable genes.

    Parameters
    ----------
    n_genes : {100, 1000}, default=100
        Number of genes: all that scDesign3 selected, or its first hundred.
    path : str or path-like, default=None
        The file, ``pancreas_100.h5ad`` or ``pancreas_1000.h5ad``, or its folder. None: the file
        is taken from the folder in the environment variable ``SC_GLM_DATA``, then from the cache.
        If neither has it, it is downloaded.

    Returns
    -------
    AnnData of 2087 cells x n_genes genes
        The counts in ``X`` and in ``layers["counts"]``, CSR of int32. ``obs`` has ``cell_type``,
        ``pseudotime`` (from 0 to 1), ``sizeFactor`` (1 on average), ``total_counts`` (of all
        genes of the genome), ``clusters_coarse``, ``clusters``, ``S_score`` and ``G2M_score``.

    Raises
    ------
    ValueError
        If `n_genes` is another number, or if the file holds other counts. The message names the
        difference.
    {errors_of_files}

    Notes
    -----
    The download is from the repository of scDesign3Py, which publishes no checksum of the file.
    So its counts and the names of cells and genes are compared with known ones. The other columns
    of ``obs`` are as in the file, and ``total_counts`` is computed from ``sizeFactor``. The cache
    is the folder of pooch for ``sc_glm``, or the folder in the environment variable
    ``SC_GLM_CACHE``. A downloaded set lacks ``layers["logcounts"]`` and ``obsm``, which other
    copies of these data have.

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
    adata = fetch(_PANCREAS[n_genes], path)
    adata.layers["counts"] = adata.X.copy()
    return adata


@documented(_ENTRIES)
def fetch_pbmc3k(*, path: PathLike | None = None) -> AnnData:
    """Return 2700 blood cells of a healthy donor, with all genes of the genome.

    These are the mononuclear cells of 10x Genomics [1]_ that most tutorials of single-cell
    analysis use. No cell and no gene is left out.

    Parameters
    ----------
    path : str or path-like, default=None
        The file ``pbmc3k_raw.h5ad``, or its folder. None: the file is taken from the folder in the
        environment variable ``SC_GLM_DATA``, then from the cache. If neither has it, it is
        downloaded.

    Returns
    -------
    AnnData of 2700 cells x 32738 genes
        The counts in ``X``, CSR of int32. ``obs`` has ``total_counts``, ``n_genes`` (the number of
        genes with positive counts), ``percent_mito`` (the percentage of counts of mitochondrial
        genes) and ``cell_type``: B, Monocyte, NK or T, by their markers (see Notes). A local file
        may have more columns, such as the published cell types ``seurat_annotations``. A
        downloaded set lacks them, as no source with a checksum is known that Python can read.

    Raises
    ------
    ValueError
        If the file holds other counts. The message names the difference.
    {errors_of_files}

    Notes
    -----
    The download is from 10x Genomics, and its SHA-256 is checked. The cache is the folder of pooch
    for ``sc_glm``, or the folder in the environment variable ``SC_GLM_CACHE``. If two genes have
    one symbol, the name of the second ends in ".1".

    ``cell_type`` is the type with the highest score of its three markers. The score is the sum
    of the logarithms of their shares in the counts of a cell, in units of its 95 % quantile over
    cells. The type agrees with the published one for 97 % of the labelled cells, if all T cells
    are one type, and dendritic cells are monocytes. The few cells without any of the markers are
    labelled as T cells.

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
    adata = fetch(_PBMC3K, path)
    adata.obs["cell_type"] = _type_by_markers(adata)
    return adata


def _type_by_markers(adata: AnnData) -> pd.Series:
    scores = {}
    for cell_type, markers in _MARKERS.items():
        shares = adata[:, markers].to_df().div(adata.obs["total_counts"], axis=0)
        score = np.log1p(1e4 * shares).sum(axis=1)
        scores[cell_type] = score / score.quantile(0.95)
    return pd.DataFrame(scores).idxmax(axis=1).astype("category")


def _pancreas_converter(n_genes: int) -> Callable[[Path], AnnData]:
    """Return a function that reads the first genes of scDesign3Py's file."""

    def convert(source: Path) -> AnnData:
        from anndata import AnnData, read_h5ad  # noqa: PLC0415 - as above

        published = read_h5ad(source)[:, :n_genes]
        obs = published.obs.copy()
        obs["total_counts"] = np.rint(_PANCREAS_MEAN_TOTAL * obs["sizeFactor"]).astype(np.int32)
        counts = sp.csr_matrix(published.layers.get("counts", published.X), dtype=np.int32)
        return AnnData(counts, obs=obs, var=pd.DataFrame(index=published.var_names))

    return convert


def _convert_pbmc3k(source: Path) -> AnnData:
    """Read the archive of text files that 10x Genomics publishes."""
    from anndata import AnnData  # noqa: PLC0415 - as above

    with tarfile.open(source) as archive:
        files = {Path(member.name).name: member for member in archive if member.isfile()}

        def text(name: str) -> Any:
            return archive.extractfile(files[name])

        with warnings.catch_warnings():
            # SciPy warns that it will return a sparse array in future, which works as well.
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
    "T": ["CD3D", "CD3E", "IL7R"],  # first, so that cells without any marker are T cells
    "B": ["CD79A", "CD79B", "MS4A1"],
    "Monocyte": ["CST3", "FCER1G", "LYZ"],
    "NK": ["GNLY", "GZMB", "PRF1"],
}

_PANCREAS_MEAN_TOTAL = 6093.345951126018  # counts per pancreatic cell, the unit of sizeFactor

# The address has the commit with the contents below.
_SCDESIGN3PY = "https://github.com/JSB-UCLA/scDesign3Py/raw/6af2ffab/docs/source/data/PANCREAS.h5ad"
_PANCREAS_CELLS = "e12f947055e3cb51a1d1807a139f2dc63d1397f345042d6928462565a3cd5ea3"
_PANCREAS_OBS = ("cell_type", "pseudotime", "sizeFactor", "total_counts")

_PANCREAS = {
    100: Dataset(
        file="pancreas_100.h5ad",
        fingerprint=Fingerprint(
            shape=(2087, 100),
            cells=_PANCREAS_CELLS,
            genes="fdc7638ca9a2ac920314524774de4c839634501d0f4edc3e9470ab1c0dffdd29",
            counts="1b6d51c6e89787284925957314b44f049d8f7a900b4b99a5a5f300e510d6428e",
            columns=_PANCREAS_OBS,
        ),
        url=_SCDESIGN3PY,
        sha256=None,
        convert=_pancreas_converter(100),
    ),
    1000: Dataset(
        file="pancreas_1000.h5ad",
        fingerprint=Fingerprint(
            shape=(2087, 1000),
            cells=_PANCREAS_CELLS,
            genes="a744d4a42bf08cbdafb412978cfb760c571867880a0b43f2af6c4d26a400bc21",
            counts="93b413cc79461b72429b2201957f9c0c71ea0c6ceb50da1b0d2f5f7042efef83",
            columns=_PANCREAS_OBS,
        ),
        url=_SCDESIGN3PY,
        sha256=None,
        convert=_pancreas_converter(1000),
    ),
}

_PBMC3K = Dataset(
    file="pbmc3k_raw.h5ad",
    fingerprint=Fingerprint(
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
    convert=_convert_pbmc3k,
)
