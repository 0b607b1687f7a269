"""Fit all genes: cut them into blocks, give each to a worker, put the results together."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import joblib
import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sc_glm.counts import CountMatrix
from sc_glm.design import FloatArray, PartDesign
from sc_glm.family import Family
from sc_glm.objective import PartBasis
from sc_glm.search import Problem, search
from sc_glm.solver import maximize
from sc_glm.status import Status, judge

_BLOCK_ENTRIES = 50_000_000  # of the matrix in one automatic block of genes
_BLOCK_GENES = 256


@dataclass(frozen=True)
class Settings:
    """How to fit, the same for all blocks."""

    max_iter: int
    tol: float
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class GeneFits:
    """Results of a block of genes.

    Attributes
    ----------
    coef : dict of str to ndarray of shape (n_columns, n_genes)
    log_likelihood : ndarray of shape (n_genes,)
        Without the penalty.
    n_iter : ndarray of shape (n_genes,)
    status : list of Status
    """

    coef: dict[str, FloatArray]
    log_likelihood: FloatArray
    n_iter: NDArray[np.int64]
    status: list[Status]

    @classmethod
    def join(cls, fits: Sequence["GeneFits"]) -> "GeneFits":
        """Put blocks side by side."""
        return cls(
            {part: np.hstack([fit.coef[part] for fit in fits]) for part in fits[0].coef},
            np.concatenate([fit.log_likelihood for fit in fits]),
            np.concatenate([fit.n_iter for fit in fits]),
            [status for fit in fits for status in fit.status],
        )


@dataclass(frozen=True)
class Designs:
    """What all genes share: the parts' designs, the offset and the weights of the cells."""

    parts: dict[str, PartDesign]
    offset: FloatArray
    weights: FloatArray


def fit_genes(
    family: Family,
    counts: CountMatrix,
    designs: Designs,
    settings: Settings,
    *,
    batch_size: int | str,
    n_jobs: int | None,
    start: dict[str, FloatArray] | None,
    progress: bool,
) -> GeneFits:
    """Fit every gene of ``counts``.

    Parameters
    ----------
    family : Family
    counts : CountMatrix
    designs : Designs
        With a row for each cell of ``counts``.
    settings : Settings
    batch_size : int or "auto"
        Genes in a block.
    n_jobs : int or None
        Workers, as joblib counts them.
    start : dict of str to ndarray of shape (n_columns, n_genes), or None
        Coefficients to start from in place of a search.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    GeneFits
    """
    size = _block_size(batch_size, counts, n_jobs)
    blocks = [slice(g, min(g + size, counts.n_genes)) for g in range(0, counts.n_genes, size)]
    tasks = (
        joblib.delayed(_fit_block)(
            family,
            counts.by_gene(block),
            designs,
            settings,
            None if start is None else {part: coef[:, block] for part, coef in start.items()},
        )
        for block in blocks
    )
    run = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    fits = []
    with tqdm(total=counts.n_genes, unit="gene", disable=not progress) as bar:
        for fit in run(tasks):
            fits.append(fit)
            bar.update(len(fit.status))
    return GeneFits.join(fits)


def _block_size(batch_size: int | str, counts: CountMatrix, n_jobs: int | None) -> int:
    if not isinstance(batch_size, str):
        return int(batch_size)
    by_memory = max(1, min(_BLOCK_GENES, _BLOCK_ENTRIES // max(1, counts.matrix.shape[0])))
    workers = joblib.effective_n_jobs(1 if n_jobs is None else n_jobs)
    return min(by_memory, math.ceil(counts.n_genes / workers))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: the operations on a tile are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit_block(
    family: Family,
    counts: sp.csr_array,
    designs: Designs,
    settings: Settings,
    start: dict[str, FloatArray] | None,
) -> GeneFits:
    with _one_thread(), torch.inference_mode():
        problem = _problem(family, counts, designs, settings)
        objective = problem.objective(problem.block(), family, problem.bases)
        if start is None:
            solution = search(problem, objective, max_iter=settings.max_iter, tol=settings.tol)
        else:
            solution = maximize(
                objective,
                _coordinates(problem, designs, start),
                max_iter=settings.max_iter,
                tol=settings.tol,
            )
        theta = torch.split(solution.theta, objective.ranks, dim=1)
        coef = {
            part: design.to_coef @ own.T.double().cpu().numpy()
            for (part, design), own in zip(designs.parts.items(), theta, strict=True)
        }
        added = [problem.offset] + [torch.zeros_like(problem.offset)] * (len(theta) - 1)
        highest = {
            part: (own @ basis.U.mT + offset).amax(1).double().cpu().numpy()
            for part, basis, own, offset in zip(
                designs.parts, problem.bases, theta, added, strict=True
            )
        }
        status = judge(
            -solution.hessian.double().cpu().numpy(),
            solution.converged.cpu().numpy(),
            highest,
            objective.ranks,
        )
        empty = np.diff(counts.indptr) == 0
        return GeneFits(
            coef,
            (solution.value + objective.penalty_of(solution.theta)).double().cpu().numpy(),
            solution.n_iter.cpu().numpy(),
            [Status.ALL_ZERO if none else word for none, word in zip(empty, status, strict=True)],
        )


def _problem(family: Family, counts: sp.csr_array, designs: Designs, settings: Settings) -> Problem:
    def tensor(x: FloatArray) -> Tensor:
        return torch.as_tensor(x, dtype=settings.dtype, device=settings.device)

    return Problem(
        family,
        counts,
        [PartBasis(tensor(d.U), tensor(d.penalty)) for d in designs.parts.values()],
        tensor(designs.offset),
        tensor(designs.weights),
    )


def _coordinates(problem: Problem, designs: Designs, start: dict[str, FloatArray]) -> Tensor:
    """Coordinates of given coefficients: the inverse of ``to_coef`` on the identified ones."""
    parts = [
        np.linalg.lstsq(design.to_coef, start[part], rcond=None)[0].T
        for part, design in designs.parts.items()
    ]
    return torch.as_tensor(np.hstack(parts)).to(problem.offset)
