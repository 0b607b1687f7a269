"""Fit one block of genes: from counts and designs to coefficients and a status for each gene."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from sc_glm.design import FloatArray, PartDesign
from sc_glm.family import Family
from sc_glm.objective import PartBasis
from sc_glm.search import Problem, search
from sc_glm.solver import maximize
from sc_glm.status import Status, judge


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


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: the operations on a tile are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit_block(
    family: Family,
    counts: sp.csr_array,
    designs: Designs,
    settings: Settings,
    start: dict[str, FloatArray] | None,
) -> GeneFits:
    """Fit the genes of ``counts``, one per row, from a search or from given coefficients."""
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
