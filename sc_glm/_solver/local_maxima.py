"""The best local maxima of each gene, as found by maximisations with a loose tolerance.

A candidate start is screened: it is maximised with a loose tolerance and few iterations, and its
result is kept if it is the highest or the second highest of the gene. Polishing a local maximum to
full accuracy is left to the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sc_glm._likelihood.family import Family
from sc_glm._likelihood.objective import Objective, PartBasis
from sc_glm._likelihood.tiles import CountBlock
from sc_glm._solver.problem import Problem
from sc_glm._solver.submodels import SMALL_LOG_ODDS, Submodel
from sc_glm._solver.trust_region import Solution, maximize

# Log-likelihood by which the values of two screened local maxima may be in the wrong order: the
# tolerance is loose, and similar cells may be merged.
SCREENING_ERROR = 2.0
_SCREENING_TOL = 1e-3  # log-likelihood
_SCREENING_ITER = 30  # passes after which the value of a candidate is compared
# Difference in log-likelihood above which two local maxima are distinct. Coefficients cannot be
# compared, because they drift where the likelihood is flat.
_DISTINCT_MAXIMA = 0.02


@dataclass
class LocalMaxima:
    """The highest local maximum of each gene, and the highest that is distinct from it.

    Attributes
    ----------
    theta : Tensor of shape (n_genes, n_params)
    value : Tensor of shape (n_genes,)
        Objective at ``theta``.
    second_theta : Tensor of shape (n_genes, n_params)
    second_value : Tensor of shape (n_genes,)
        Objective at ``second_theta``; minus infinity if no second local maximum is known.
    unfinished : Tensor of bool of shape (n_genes,)
        Whether the run to ``theta`` was stopped before it converged.
    of_submodels : dict of Submodel to LocalMaxima
        Local maxima of submodels, in their own coordinates.
    """

    theta: Tensor
    value: Tensor
    second_theta: Tensor
    second_value: Tensor
    unfinished: Tensor
    of_submodels: dict[Submodel, "LocalMaxima"] = field(default_factory=dict)

    @classmethod
    def of(cls, solution: Solution) -> "LocalMaxima":
        """Return the local maxima of one run for each gene."""
        return replace(cls.at(solution.theta, solution.value), unfinished=~solution.converged)

    @classmethod
    def at(cls, theta: Tensor, value: Tensor) -> "LocalMaxima":
        """Return one local maximum for each gene."""
        unfinished = torch.zeros_like(value, dtype=torch.bool)
        return cls(theta, value, theta.clone(), torch.full_like(value, -torch.inf), unfinished)

    @classmethod
    def join(cls, blocks: Sequence["LocalMaxima"]) -> "LocalMaxima":
        """Concatenate the local maxima of blocks of genes."""
        of_submodels = {
            submodel: cls.join([block.of_submodels[submodel] for block in blocks])
            for submodel in blocks[0].of_submodels
        }
        return cls(
            theta=torch.cat([block.theta for block in blocks]),
            value=torch.cat([block.value for block in blocks]),
            second_theta=torch.cat([block.second_theta for block in blocks]),
            second_value=torch.cat([block.second_value for block in blocks]),
            unfinished=torch.cat([block.unfinished for block in blocks]),
            of_submodels=of_submodels,
        )

    def to(self, like: Tensor) -> "LocalMaxima":
        """Return the local maxima on the device and in the precision of a tensor."""
        theta, value, second_theta, second_value = (
            x.to(like) for x in (self.theta, self.value, self.second_theta, self.second_value)
        )
        of_submodels = {submodel: maxima.to(like) for submodel, maxima in self.of_submodels.items()}
        unfinished = self.unfinished.to(like.device)
        return LocalMaxima(theta, value, second_theta, second_value, unfinished, of_submodels)

    def change_bases(self, problem: Problem, bases: Sequence[PartBasis]) -> "LocalMaxima":
        """Return the local maxima in the bases of a problem, given their present bases."""
        theta, second_theta = (
            problem.change_bases(x, bases, problem.bases) for x in (self.theta, self.second_theta)
        )
        return replace(self, theta=theta, second_theta=second_theta)

    def resume(self, genes: Tensor, theta: Tensor, value: Tensor) -> None:
        """Replace the points of unfinished runs by those that their continuation reached."""
        self.theta[genes], self.value[genes], self.unfinished[genes] = theta, value, False

    def add(self, genes: Tensor, theta: Tensor, value: Tensor) -> None:
        """Add a local maximum of each of some genes; the two highest distinct ones are kept."""
        distinct = (value - self.value[genes]).abs() > _DISTINCT_MAXIMA
        higher = value > self.value[genes]
        demoted = genes[higher & distinct]
        self.second_theta[demoted] = self.theta[demoted]
        self.second_value[demoted] = self.value[demoted]
        self.theta[genes[higher]], self.value[genes[higher]] = theta[higher], value[higher]
        is_second = ~higher & distinct & (value > self.second_value[genes])
        self.second_theta[genes[is_second]] = theta[is_second]
        self.second_value[genes[is_second]] = value[is_second]


@dataclass(frozen=True)
class Screening:
    """Maximisations of several models of the same counts, with a loose tolerance.

    Attributes
    ----------
    problem : Problem
    block : CountBlock
        The counts of the problem.
    max_iter : int
        Passes over the counts after which a run is given up.
    """

    problem: Problem
    block: CountBlock
    max_iter: int

    def objective(self, family: Family, bases: Sequence[PartBasis]) -> Objective:
        """Return the objective of a model of these counts."""
        return self.problem.objective(self.block, family, bases)

    def maximize(self, model: Objective, start: Tensor, max_iter: int | None = None) -> LocalMaxima:
        """Maximise a model from one start for each gene."""
        limit = min(self.max_iter, max_iter or self.max_iter)
        return LocalMaxima.of(maximize(model, start, max_iter=limit, tol=_SCREENING_TOL))

    def try_starts(
        self,
        maxima: LocalMaxima,
        model: Objective,
        starts: Sequence[Tensor],
        where: Tensor,
    ) -> None:
        """Maximise from further starts, and add the results to the local maxima.

        ``where`` is a mask of the genes for which the starts are tried. Unfinished runs of all
        genes are continued in the same batch.
        """
        unfinished, genes = (torch.nonzero(mask)[:, 0] for mask in (maxima.unfinished, where))
        rows = torch.cat([unfinished, genes.repeat(len(starts))])
        if not len(rows):
            return
        solution = maximize(
            model,
            torch.cat([maxima.theta[unfinished], *(start[genes] for start in starts)]),
            max_iter=min(self.max_iter, _SCREENING_ITER),
            tol=_SCREENING_TOL,
            genes=rows,
            cutoff=maxima.value[rows] - SCREENING_ERROR,
        )
        value = solution.value.nan_to_num(-torch.inf)
        n_unfinished = len(unfinished)
        maxima.resume(unfinished, solution.theta[:n_unfinished], value[:n_unfinished])
        for first in range(n_unfinished, len(rows), max(1, len(genes))):
            rows_of_start = slice(first, first + len(genes))
            maxima.add(genes, solution.theta[rows_of_start], value[rows_of_start])

    def try_submodel(
        self,
        maxima: LocalMaxima,
        model: Objective,
        problem: Problem,
        submodel: Submodel,
        of_submodel: LocalMaxima,
    ) -> None:
        """Add the maxima of a submodel to those of the model where they are higher.

        ``problem`` has the bases of the model.
        """
        higher = of_submodel.value > maxima.value + _DISTINCT_MAXIMA
        if not (higher.any() and submodel.is_nested(problem)):
            return
        if not submodel.has_all_parts(problem):
            start = submodel.embed(problem, of_submodel.theta, SMALL_LOG_ODDS)
            self.try_starts(maxima, model, [start], higher)
        genes = torch.nonzero(higher)[:, 0]
        theta = submodel.embed(problem, of_submodel.theta[genes])
        maxima.add(genes, theta, model.evaluate(theta, genes).value)
