"""Finished blocks of genes in a folder, from which an interrupted fit is resumed.

The folder holds ``manifest.json``, which describes the fit, and a file for each block of genes. The
name of a block is the number of its first gene and the number after the last. Files are written
atomically: an interrupted fit, or another fit in the same folder, leaves no partial file.
"""

import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from sc_glm._counts.count_matrix import CountMatrix
from sc_glm._design.design import FloatArray
from sc_glm._likelihood.family import Family
from sc_glm._solver.gene_block import Designs, GeneFits, Settings

_FORMAT = 1
_MANIFEST = "manifest.json"
_BLOCK = re.compile(r"genes-(\d+)-(\d+)\.npz")
_ABOUT = "about"  # entry of a block for all that is not an array

Fingerprint = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A folder of finished blocks of one fit.

    Attributes
    ----------
    folder : Path
    problem : str
        Digest of everything that the results depend on.
    n_columns : dict of str to int
        Number of coefficients of each part.
    n_genes : int
        Number of genes of the whole fit.
    """

    folder: Path
    problem: str
    n_columns: dict[str, int]
    n_genes: int

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        family: Family,
        counts: CountMatrix,
        designs: Designs,
        settings: Settings,
        *,
        start: dict[str, FloatArray] | None,
        log_size: FloatArray | None = None,
    ) -> "Checkpoint":
        """Open the checkpoint of a fit, or create it in an empty or missing folder.

        Parameters
        ----------
        folder : path-like
            Created if it does not exist.
        family, counts, designs, settings, start, log_size
            The arguments of :func:`~sc_glm._solver.fitting.fit_genes`.

        Raises
        ------
        ValueError
            If the folder is a file, holds other files, or holds the checkpoint of another fit. The
            message names the differences.
        OSError
            If the folder cannot be created or written.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"checkpoint_dir={str(folder)!r} is a file; name a folder.")
        expected = fingerprint(family, counts, designs, settings, start, log_size=log_size)
        manifest = folder / _MANIFEST
        content = json.dumps(expected, indent=2).encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if manifest.exists():
                _check_manifest(manifest, expected)
            else:
                _check_empty(folder)
            _write_atomically(manifest, content)  # an existing one too: fails early if read-only
        except OSError as error:
            raise OSError(
                f"checkpoint_dir={str(folder)!r} cannot be created or written: {error}"
            ) from error
        n_columns = {part: len(design.to_coef) for part, design in designs.parts.items()}
        return cls(folder, blake2b(content, digest_size=16).hexdigest(), n_columns, counts.n_genes)

    def read(self) -> dict[int, GeneFits]:
        """Return the finished blocks by their first gene.

        Raises
        ------
        ValueError
            If a file is damaged or belongs to another fit.
        """
        names = (_BLOCK.fullmatch(path.name) for path in self.folder.iterdir())
        ranges = ((int(name[1]), int(name[2])) for name in names if name)
        blocks = {}
        reached = 0
        # Blocks of fits with different block sizes may overlap. The longer one is taken.
        for first, stop in sorted(ranges, key=lambda genes: (genes[0], -genes[1])):
            if first >= reached:
                blocks[first] = self._read(first, stop)
                reached = stop
        return blocks

    def write(self, first: int, fits: GeneFits) -> None:
        """Write a finished block, whose first gene is ``first``."""
        arrays: dict[str, NDArray[Any]] = {}
        about: dict[str, Any] = {"problem": self.problem, "first": first}
        for field in fields(fits):
            value = getattr(fits, field.name)
            if isinstance(value, dict):
                arrays |= {f"{field.name}.{key}": array for key, array in value.items()}
            elif isinstance(value, np.ndarray):
                arrays[field.name] = value
            else:
                about[field.name] = value
        arrays[_ABOUT] = np.array(json.dumps(about, default=sorted))  # a set as a list
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        _write_atomically(self._path(first, first + len(fits.status)), buffer.getvalue())

    def _path(self, first: int, stop: int) -> Path:
        return self.folder / f"genes-{first:06d}-{stop:06d}.npz"

    def _read(self, first: int, stop: int) -> GeneFits:
        path = self._path(first, stop)
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = dict(file)
            about = json.loads(arrays.pop(_ABOUT).item())
            fits = _restored(arrays, about)
            self._check(fits, about, first, stop)
        except Exception as error:  # a damaged file makes its readers fail in many ways
            raise ValueError(
                f"{path} is not a block of this fit, or is damaged: {error}. Delete it to have its "
                "genes fitted again."
            ) from error
        return fits

    def _check(self, fits: GeneFits, about: dict[str, Any], first: int, stop: int) -> None:
        if (about["problem"], about["first"]) != (self.problem, first):
            raise ValueError("it belongs to another fit")
        n_genes = stop - first
        expected = {part: (n, n_genes) for part, n in self.n_columns.items()}
        is_expected = [
            {part: array.shape for part, array in value.items()} == expected
            if isinstance(value, dict)
            else len(value) == n_genes
            for value in (getattr(fits, field.name) for field in fields(fits))
        ]
        if stop > self.n_genes or not all(is_expected):
            raise ValueError("the shapes of its arrays do not match its genes and the designs")
        if not all(np.isfinite(coef).all() for coef in fits.coef.values()):
            raise ValueError("it has coefficients that are not finite")


def fingerprint(
    family: Family,
    counts: CountMatrix,
    designs: Designs,
    settings: Settings,
    start: dict[str, FloatArray] | None,
    *,
    log_size: FloatArray | None = None,
) -> Fingerprint:
    """Return a description of all that the results of a fit depend on: settings and data digests.

    Block size, number of workers and device are left out. Blocks and workers do not change results,
    and a device changes only rounding.
    """
    return {
        "settings": {
            "format": _FORMAT,
            "version": version("sc_glm"),
            "family": repr(family),
            "number of cells": len(counts),
            "number of genes": counts.n_genes,
            "max_iter": int(settings.max_iter),
            "tol": float(settings.tol),
            "dtype": str(settings.dtype),
        },
        "data": {
            "counts": _digest([counts.cell_digests()]),
            "gene names": _digest([np.array(list(counts.names), dtype=np.str_)]),
            "offset": _digest([designs.offset]),
            "weights": _digest([designs.weights]),
            "cells that are alike": (
                None
                if designs.cells is None
                else _digest([designs.cells.rows, designs.cells.weights])
            ),
            **{
                f"{part} design or penalty": design.source for part, design in designs.parts.items()
            },
            "warm start": None if start is None else _digest(start.values()),
            "size": None if log_size is None else _digest([log_size]),
        },
    }


def _digest(arrays: Iterable[NDArray[Any]]) -> str:
    digest = blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _check_manifest(path: Path, expected: Fingerprint) -> None:
    try:
        stored = json.loads(path.read_bytes())
        differences = [
            name if kind == "data" else f"{name} ({stored[kind].get(name)} there, {value} here)"
            for kind, values in expected.items()
            for name, value in values.items()
            if stored[kind].get(name) != value
        ]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not the manifest of a checkpoint, or is damaged. Name an empty folder as "
            "checkpoint_dir."
        ) from error
    if differences:
        raise ValueError(
            f"checkpoint_dir={str(path.parent)!r} is the checkpoint of another fit, which differs "
            f"in: {', '.join(differences)}. Fit the same model to the same data, or name an empty "
            "folder."
        )


def _check_empty(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if names:
        raise ValueError(
            f"checkpoint_dir={str(folder)!r} holds files but no {_MANIFEST}: {names[:5]}. Name an "
            "empty folder, or one that does not exist yet."
        )


def _restored(arrays: dict[str, NDArray[Any]], about: dict[str, Any]) -> GeneFits:
    """Return the results from the fields that :meth:`Checkpoint.write` has written."""
    values: dict[str, Any] = {}
    for name, kind in get_type_hints(GeneFits).items():
        if get_origin(kind) is dict:
            by_field = {key.partition("."): array for key, array in arrays.items()}
            values[name] = {
                key: array for (field, _, key), array in by_field.items() if field == name
            }
        elif get_origin(kind) is list:
            (element,) = get_args(kind)
            restore = get_origin(element) or element
            values[name] = [restore(value) for value in about[name]]
        else:
            values[name] = arrays[name]
    return GeneFits(**values)


def _write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
