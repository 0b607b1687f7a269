"""Counts in a file, read by groups of genes that fit a memory budget.

A matrix by cells, the usual form, has the counts of a gene all over the file: each group of genes
takes one walk through it. One by genes is read where the group stands. The file is read alone,
never written, and whoever has a :class:`StoredCounts` can open it anew: another process, or another
machine that sees the same path.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, ClassVar

import h5py
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

_READ_ENTRIES = 2_000_000  # of the matrix at a time
_SAMPLED_PLACES = 10
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
        What to call it.

    Raises
    ------
    ValueError
        If it is no such text, or not positive.
    TypeError
        If it is of another type.
    """
    if isinstance(amount, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?I?B)\s*", amount.upper())
        n_bytes = int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    elif isinstance(amount, int | np.integer) and not isinstance(amount, bool):
        n_bytes = int(amount)
    else:
        raise TypeError(f"{name} must be a number of bytes or a text like '2GB', not {amount!r}.")
    if n_bytes < 1:
        raise ValueError(
            f"{name}={amount!r} is no amount of memory. Give bytes, or a number with one of the "
            "units B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, such as '2GB'."
        )
    return n_bytes


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix in an HDF5 or zarr file, as anndata stores it.

    Attributes
    ----------
    name : str
        What messages call it.
    path : str or None
        The HDF5 file; None is a zarr store.
    stored : str or zarr object
        Name in the HDF5 file, or the group or array of zarr, which opens itself elsewhere.
    format : {"csr", "csc", "dense"}
    shape : tuple of int
        Numbers of cells and genes.
    dtype : dtype
    """

    name: str
    path: str | None
    stored: Any
    format: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, matrix: Any, name: str) -> "StoredMatrix | None":
        """Return where ``matrix`` is stored: anndata's sparse dataset, or an array of a file.

        None is one that is not in a file.
        """
        stored = getattr(matrix, "group", matrix)
        in_hdf5 = isinstance(stored, h5py.Group | h5py.Dataset)
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
        """Bytes that an entry's row takes in memory; rows are numbered in 32 bits if they can."""
        return 4 if self.shape[0] < 2**31 else 8

    def n_bytes(self) -> int:
        """Return what the matrix takes in memory, at most."""
        with self._opened() as stored:
            entries = self.shape[0] * self.shape[1]
            if self.format != "dense":
                entries = int(stored["data"].shape[0])
        return entries * (self.dtype.itemsize + self.index_bytes)

    def sample(self, size: int) -> NDArray[Any]:
        """Return about ``size`` of the stored values, from places all over the file."""
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
            With its ends.

        Yields
        ------
        first_cell, first_gene : int
            Where in the matrix the piece stands.
        piece : csc_array
            In canonical form, its values not checked.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If its indices are damaged.
        """
        with self._opened() as stored:
            if self.format == "dense":
                yield from self._dense_pieces(stored, genes)
            else:
                yield from self._sparse_pieces(stored, genes)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        if self.path is None:
            yield self.stored
            return
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise OSError(
                f"{self.name} cannot be read from {self.path!r}: {error}. Whoever fits opens the "
                "file by this path: it must exist on the machines of all workers, and not be open "
                "for writing (backed='r')."
            ) from error
        with file:
            yield file[self.stored]

    def _sparse_pieces(self, stored: Any, genes: slice) -> Iterator[tuple[int, int, sp.csc_array]]:
        by_cell = self.format == "csr"
        indptr = np.asarray(stored["indptr"][:])
        n_lines = self.shape[0 if by_cell else 1]
        n_entries = int(stored["data"].shape[0])
        if len(indptr) != n_lines + 1 or (np.diff(indptr) < 0).any() or indptr[-1] != n_entries:
            raise ValueError(f"{self.name} is a damaged sparse matrix: its index pointers.")
        first, last = (0, n_lines) if by_cell else (genes.start, genes.stop)
        targets = np.arange(indptr[first] + _READ_ENTRIES, indptr[last], _READ_ENTRIES)
        cuts = np.unique([first, *np.searchsorted(indptr, targets), last]).tolist()
        for start, stop in pairwise(cuts):
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
        chunk = stored.chunks[0] if stored.chunks else 1  # each is decompressed once
        step = max(chunk, step // chunk * chunk)
        for start in range(0, self.shape[0], step):
            values = stored[start : start + step, genes]
            yield start, genes.start, sp.csc_array(_readable(values))


@dataclass(frozen=True)
class StoredCounts(CountMatrix):
    """Counts that stay in a file, all checked.

    Attributes
    ----------
    matrix : StoredMatrix
    genes : slice
        Which of the matrix's these are.
    cells : ndarray of int, or None
        Which of the matrix's these are; None is all.
    n_entries : ndarray of int of shape (n_genes,)
        Each gene's number of positive counts in all cells of the matrix.
    digests : ndarray of uint64
        Digest of each cell of the matrix; of some genes there are none.
    memory_budget : int
        How many bytes the counts that are read at a time may take.
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
        """Read a matrix once, to check it and to learn how many counts each gene has.

        Parameters
        ----------
        matrix : StoredMatrix
        names : ndarray of str of shape (n_genes,)
            Genes' names.
        memory_budget : int
            In bytes.

        Raises
        ------
        ValueError
            If the matrix holds what no count can be (the message names the gene, the row and the
            value), its indices are damaged, or a gene exceeds the budget.
        """
        n_cells, n_genes = matrix.shape
        n_entries = np.zeros(n_genes, dtype=np.int64)
        digests = np.zeros(n_cells, dtype=np.uint64)
        genes = slice(0, n_genes)
        for first_cell, first_gene, piece in matrix.pieces(genes):
            here = slice(first_gene, first_gene + piece.shape[1])
            check_values(piece, names[here], name=matrix.name, first_row=first_cell)
            n_entries[here] += np.diff(piece.indptr)
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
                f"{names[largest]!r}, which take {needed}."
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
        own = np.arange(self.matrix.shape[0]) if self.cells is None else self.cells
        return replace(self, cells=own[rows])

    def n_positive(self) -> NDArray[np.int64]:
        """Return each gene's number of positive counts, at most."""
        return self.n_entries

    def cell_digests(self) -> NDArray[np.uint64]:
        """Return a number for each cell that tells its counts from others, whatever their form."""
        return self.digests if self.cells is None else self.digests[self.cells]

    def groups(self, most_genes: int) -> list[slice]:
        """Cut the genes into those that are loaded at a time."""
        return consecutive_blocks(self._gene_bytes(), self.memory_budget, longest=most_genes)

    def only(self, genes: slice) -> "StoredCounts":
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
        """Read the counts.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If it was changed since it was checked.
        """
        indptr = np.concatenate([[0], np.cumsum(self.n_entries)]).astype(np.int64)
        index = np.int32 if max(indptr[-1], self.matrix.shape[0]) < 2**31 else np.int64
        data = np.empty(indptr[-1], dtype=_readable(np.empty(0, self.matrix.dtype)).dtype)
        rows = np.empty(indptr[-1], dtype=index)
        free = indptr[:-1].copy()
        for first_cell, first_gene, piece in self.matrix.pieces(self.genes):
            first = first_gene - self.genes.start
            here = slice(first, first + piece.shape[1])
            lengths = np.diff(piece.indptr)
            if (free[here] + lengths > indptr[1:][here]).any():
                raise self._changed()
            place = np.repeat(free[here] - piece.indptr[:-1], lengths) + np.arange(piece.nnz)
            data[place] = piece.data
            rows[place] = piece.indices + first_cell
            free[here] += lengths
        if (free != indptr[1:]).any():
            raise self._changed()
        shape = (self.matrix.shape[0], self.n_genes)
        pointers: Any = indptr.astype(index)
        read = sp.csc_array((data, rows, pointers), shape=shape)
        check_values(read, self.names, name=self.matrix.name)
        return CountMatrix(
            read if self.cells is None else read[self.cells], self.names, self.one_dimensional
        )

    def dense(self, genes: slice) -> NDArray[Any]:
        """Read the counts of some genes as a dense array."""
        return self.only(genes).load().dense(slice(None))

    def by_gene(self, genes: slice) -> sp.csr_array:
        """Read the positive counts of some genes in compressed rows, one per gene."""
        return self.only(genes).load().by_gene(slice(None))

    def _gene_bytes(self) -> NDArray[np.int64]:
        """Return what each gene takes while it is read; a choice of cells is a copy."""
        entry = self.matrix.dtype.itemsize + self.matrix.index_bytes
        return self.n_entries * entry * (1 if self.cells is None else 2)

    def _changed(self) -> ValueError:
        return ValueError(f"{self.matrix.name} was changed in its file while it was fitted.")


def _readable(values: Any) -> NDArray[Any]:
    """Return values in a type that SciPy's sparse matrices have."""
    values = np.asarray(values)
    return values.astype(np.float64) if values.dtype == np.float16 else values
