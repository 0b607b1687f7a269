"""Counts in a file, read by groups of genes that fit a memory budget.

A matrix that is stored by cells, the usual form, has the counts of a gene all over the file. Each
group of genes then takes one pass through the file. In a matrix that is stored by genes, only the
group is read. Files are opened for reading only. Every process or machine that sees the same path
can open the file of a :class:`StoredCounts` again.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sc_glm._contract.validation import checked_sparse
from sc_glm._counts.count_matrix import (
    CountMatrix,
    add_digests,
    canonical,
    check_values,
    consecutive_blocks,
)

_READ_ENTRIES = 2_000_000  # entries of the matrix that are read at a time
_SAMPLED_PLACES = 10  # places in a file, at equal distances, from which values are sampled
_UNITS = {unit: 1000**i for i, unit in enumerate(("B", "KB", "MB", "GB", "TB"))} | {
    unit: 1024**i for i, unit in enumerate(("KIB", "MIB", "GIB", "TIB"), start=1)
}


def parse_bytes(amount: Any, name: str) -> int:
    """Return an amount of memory in bytes.

    Parameters
    ----------
    amount : int or str
        Bytes, or a number with a unit: ``"500MB"``, ``"1.5 GiB"``.
    name : str
        Name of the amount in messages.

    Raises
    ------
    ValueError
        If a string is not a number with a unit, or if the amount is not positive.
    TypeError
        If `amount` is neither a number nor a string.
    """
    if isinstance(amount, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?I?B)\s*", amount.upper())
        n_bytes = int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    elif isinstance(amount, int | np.integer) and not isinstance(amount, bool):
        n_bytes = int(amount)
    else:
        raise TypeError(f"{name} must be a number of bytes or a string like '2GB', not {amount!r}.")
    if n_bytes < 1:
        raise ValueError(
            f"{name}={amount!r} is not an amount of memory. Give bytes, or a number with one of "
            "the units B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, such as '2GB'."
        )
    return n_bytes


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix in an HDF5 or zarr file, as anndata stores it.

    Attributes
    ----------
    name : str
        Name of the matrix in messages.
    path : str or None
        Path of the HDF5 file; None for a zarr store.
    stored : str or zarr object
        Name of the matrix in the HDF5 file, or its zarr group or array. A zarr object opens its
        store again in another process.
    format : {"csr", "csc", "dense"}
        How the matrix is stored: by cells, by genes, or dense.
    shape : tuple of int
        Numbers of cells and genes.
    dtype : dtype
        Type of the counts.
    """

    name: str
    path: str | None
    stored: Any
    format: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, matrix: Any, name: str) -> "StoredMatrix | None":
        """Return a matrix of a file: a sparse dataset of anndata, or an array of HDF5 or zarr.

        None is returned for a matrix that is not in a file.
        """
        stored = getattr(matrix, "group", matrix)
        h5py = sys.modules.get("h5py")  # if it was not imported, nothing is of an HDF5 file
        in_hdf5 = h5py is not None and isinstance(stored, h5py.Group | h5py.Dataset)
        if not in_hdf5 and type(stored).__module__.partition(".")[0] != "zarr":
            return None
        return cls(
            name,
            os.path.abspath(stored.file.filename) if in_hdf5 else None,  # noqa: PTH100
            stored.name if in_hdf5 else stored,
            getattr(matrix, "format", "dense"),
            (int(matrix.shape[0]), int(matrix.shape[1])),
            np.dtype(matrix.dtype),
        )

    @property
    def index_bytes(self) -> int:
        """Number of bytes of a row's index: rows are numbered in 32 bits if that is enough."""
        return 4 if self.shape[0] < 2**31 else 8

    def n_bytes(self) -> int:
        """Return the number of bytes that the matrix takes in memory, at most."""
        with self._opened() as stored:
            entries = self.shape[0] * self.shape[1]
            if self.format != "dense":
                entries = int(stored["data"].shape[0])
        return entries * (self.dtype.itemsize + self.index_bytes)

    def sample(self, size: int) -> NDArray[Any]:
        """Return about `size` of the stored values, from places all over the file."""
        with self._opened() as stored:
            values = stored if self.format == "dense" else stored["data"]
            n_items = int(values.shape[0])
            entries = self.shape[1] if self.format == "dense" else 1
            length = max(1, size // (_SAMPLED_PLACES * entries))
            places = np.unique(
                np.linspace(0, max(0, n_items - length), _SAMPLED_PLACES).astype(int)
            )
            return np.concatenate([np.ravel(values[i : i + length]) for i in places.tolist()])

    def pieces(self, genes: slice) -> Iterator[tuple[int, int, sp.csc_array]]:
        """Read the counts of some genes piece by piece, in the order of the file.

        Parameters
        ----------
        genes : slice
            Genes; both ends of the slice are given.

        Yields
        ------
        first_cell, first_gene : int
            Position of the piece in the matrix.
        piece : csc_array
            Counts in canonical form. Their values are not checked.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If the indices in the file are damaged.
        """
        with self._opened() as stored:
            if self.format == "dense":
                yield from self._dense_pieces(stored, genes)
            else:
                yield from self._sparse_pieces(stored, genes)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open the file and return the stored group or array."""
        if self.path is None:
            yield self.stored
            return
        import h5py  # noqa: PLC0415 - only files need it

        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise OSError(
                f"{self.name} cannot be read from {self.path!r}: {error}. Each worker opens the "
                "file by this path. Make sure that it exists on the machines of all workers, and "
                "that it is not open for writing (backed='r')."
            ) from error
        with file:
            yield file[self.stored]

    def _sparse_pieces(self, stored: Any, genes: slice) -> Iterator[tuple[int, int, sp.csc_array]]:
        by_cell = self.format == "csr"
        indptr = np.asarray(stored["indptr"][:])
        n_lines = self.shape[0 if by_cell else 1]
        n_entries = int(stored["data"].shape[0])
        if len(indptr) != n_lines + 1 or (np.diff(indptr) < 0).any() or indptr[-1] != n_entries:
            raise ValueError(
                f"{self.name} is a damaged sparse matrix: its index pointers are not ascending, or "
                "do not match its shape. Write the file again."
            )
        first, last = (0, n_lines) if by_cell else (genes.start, genes.stop)
        targets = np.arange(indptr[first] + _READ_ENTRIES, indptr[last], _READ_ENTRIES)
        bounds = np.unique([first, *np.searchsorted(indptr, targets), last]).tolist()
        for start, stop in pairwise(bounds):
            entries = slice(int(indptr[start]), int(indptr[stop]))
            piece = checked_sparse(
                SimpleNamespace(
                    format=self.format,
                    data=_readable(stored["data"][entries]),
                    indices=stored["indices"][entries],
                    indptr=indptr[start : stop + 1] - indptr[start],
                    shape=(
                        (stop - start, self.shape[1]) if by_cell else (self.shape[0], stop - start)
                    ),
                ),
                self.name,
            )
            if by_cell:
                yield start, genes.start, canonical(piece[:, genes])
            else:
                yield 0, start, canonical(piece)

    def _dense_pieces(self, stored: Any, genes: slice) -> Iterator[tuple[int, int, sp.csc_array]]:
        step = max(1, _READ_ENTRIES // (genes.stop - genes.start))
        chunk = stored.chunks[0] if stored.chunks else 1  # whole chunks are decompressed once
        step = max(chunk, step // chunk * chunk)
        for start in range(0, self.shape[0], step):
            values = stored[start : start + step, genes]
            yield start, genes.start, sp.csc_array(_readable(values))


@dataclass(frozen=True)
class StoredCounts(CountMatrix):
    """Checked counts that stay in a file.

    Attributes
    ----------
    matrix : StoredMatrix
        Matrix in the file.
    genes : slice
        Genes of the matrix that belong to these counts.
    cells : ndarray of int, or None
        Cells of the matrix that belong to these counts; None means all.
    n_entries : ndarray of int of shape (n_genes,)
        Each gene's number of positive counts in all cells of the matrix.
    digests : ndarray of uint64
        Hash of each cell of the matrix; empty if the counts are of some genes only.
    memory_budget : int
        Number of bytes that the counts that are read at a time may take.
    """

    genes: slice
    cells: NDArray[np.intp] | None
    n_entries: NDArray[np.int64]
    digests: NDArray[np.uint64]
    memory_budget: int

    in_memory: ClassVar[bool] = False

    @classmethod
    def scan(
        cls, matrix: StoredMatrix, names: NDArray[np.object_], memory_budget: int
    ) -> "StoredCounts":
        """Read a matrix once, to check it and to count the positive counts of each gene.

        Parameters
        ----------
        matrix : StoredMatrix
            Matrix in a file.
        names : ndarray of str of shape (n_genes,)
            Names of the genes.
        memory_budget : int
            Memory for the counts that are read at a time, in bytes.

        Raises
        ------
        ValueError
            If a value cannot be a count, indices are damaged, or a gene exceeds the budget. The
            message names the gene, and the row and value of a wrong count.
        """
        n_cells, n_genes = matrix.shape
        n_entries = np.zeros(n_genes, dtype=np.int64)
        digests = np.zeros(n_cells, dtype=np.uint64)
        genes = slice(0, n_genes)
        for first_cell, first_gene, piece in matrix.pieces(genes):
            genes_of_piece = slice(first_gene, first_gene + piece.shape[1])
            check_values(piece, names[genes_of_piece], name=matrix.name, first_row=first_cell)
            n_entries[genes_of_piece] += np.diff(piece.indptr)
            add_digests(digests, piece, first_gene, first_cell)
        counts = cls(
            matrix,
            names,
            one_dimensional=False,
            genes=genes,
            cells=None,
            n_entries=n_entries,
            digests=digests,
            memory_budget=memory_budget,
        )
        largest = int(np.argmax(n_entries))
        needed = int(counts._gene_bytes()[largest])
        if needed > memory_budget:
            raise ValueError(
                f"memory_budget={memory_budget} bytes do not hold the counts of gene "
                f"{names[largest]!r}, which take {needed}. Set memory_budget to at least this."
            )
        return counts

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.names)

    def __len__(self) -> int:
        return self.matrix.shape[0] if self.cells is None else len(self.cells)

    def __getitem__(self, cells: Any) -> "StoredCounts":
        rows = cells[0] if isinstance(cells, tuple) else cells
        cells_before = np.arange(self.matrix.shape[0]) if self.cells is None else self.cells
        return replace(self, cells=cells_before[rows])

    def n_positive(self) -> NDArray[np.int64]:
        """Return each gene's number of positive counts in all cells of the matrix.

        Selected cells have at most this number.
        """
        return self.n_entries

    def cell_digests(self) -> NDArray[np.uint64]:
        """Return a hash of each cell's counts, which does not depend on the form of the matrix."""
        return self.digests if self.cells is None else self.digests[self.cells]

    def gene_groups(self, max_genes: int) -> list[slice]:
        """Return groups of genes that are loaded at a time, within the memory budget."""
        return consecutive_blocks(self._gene_bytes(), self.memory_budget, longest=max_genes)

    def select_genes(self, genes: slice) -> "StoredCounts":
        """Return the counts of some genes, still in the file."""
        start, stop, _ = genes.indices(self.n_genes)
        return replace(
            self,
            genes=slice(self.genes.start + start, self.genes.start + stop),
            names=self.names[genes],
            n_entries=self.n_entries[genes],
            digests=self.digests[:0],
        )

    def load(self) -> CountMatrix:
        """Read the counts into memory.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If the file was changed after it had been checked.
        """
        indptr = np.concatenate([[0], np.cumsum(self.n_entries)]).astype(np.int64)
        index = np.int32 if max(indptr[-1], self.matrix.shape[0]) < 2**31 else np.int64
        data = np.empty(indptr[-1], dtype=_readable(np.empty(0, self.matrix.dtype)).dtype)
        rows = np.empty(indptr[-1], dtype=index)
        free = indptr[:-1].copy()
        for first_cell, first_gene, piece in self.matrix.pieces(self.genes):
            first = first_gene - self.genes.start
            genes_of_piece = slice(first, first + piece.shape[1])
            lengths = np.diff(piece.indptr)
            if (free[genes_of_piece] + lengths > indptr[1:][genes_of_piece]).any():
                raise self._change_error()
            target = np.repeat(free[genes_of_piece] - piece.indptr[:-1], lengths) + np.arange(
                piece.nnz
            )
            data[target] = piece.data
            rows[target] = piece.indices + first_cell
            free[genes_of_piece] += lengths
        if (free != indptr[1:]).any():
            raise self._change_error()
        shape = (self.matrix.shape[0], self.n_genes)
        pointers: Any = indptr.astype(index)
        read = sp.csc_array((data, rows, pointers), shape=shape)
        check_values(read, self.names, name=self.matrix.name)
        return CountMatrix(
            read if self.cells is None else read[self.cells], self.names, self.one_dimensional
        )

    def dense(self, genes: slice) -> NDArray[Any]:
        """Read the counts of some genes as a dense array."""
        return self.select_genes(genes).load().dense(slice(None))

    def by_gene(self, genes: slice) -> sp.csr_array:
        """Read the positive counts of some genes in compressed rows, one per gene."""
        return self.select_genes(genes).load().by_gene(slice(None))

    def _gene_bytes(self) -> NDArray[np.int64]:
        """Return the bytes that each gene takes while it is read; selecting cells makes a copy."""
        entry = self.matrix.dtype.itemsize + self.matrix.index_bytes
        return self.n_entries * entry * (1 if self.cells is None else 2)

    def _change_error(self) -> ValueError:
        """Return the error of a file that was changed after it had been checked."""
        return ValueError(
            f"{self.matrix.name} was changed in its file while it was fitted. Fit it again."
        )


def _readable(values: Any) -> NDArray[Any]:
    """Return values in a type that sparse matrices of SciPy support."""
    values = np.asarray(values)
    return values.astype(np.float64) if values.dtype == np.float16 else values
