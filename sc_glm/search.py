"""Where to start each gene, and which of several maxima to keep.

A negative binomial with one size per gene has, in practice, one maximum. Regressing the size, or
adding zero inflation, brings others, so these models are reached through the simpler ones that
they contain. Where that gains little, or both come together, starts that lean the size or the
inflation to either end of its predictor are tried as well, on a sample of the cells when there are
many.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sc_glm.family import Family, NegBinFamily
from sc_glm.objective import CountBlock, Objective, PartBasis, tile_cells
from sc_glm.solver import Solution, maximize

_LOOSE = 1e-2  # tolerance of a stage that only leads to the next
_SAMPLE = 2_000  # cells that suffice to tell good starts from bad
_START_SIZES = (0.2, 10.0)
_LONGEST_LEAN = 0.5
_UNSEEN = 1e-9  # share of the largest curvature, or of a cell, that counts as none
_ALIKE = 1e-6
_SILENT_DEPTH = 18.0  # log units by which a silent cell's mean is put below the gene's
_SILENCE_ENTRIES = 4_000_000  # cells x rank x genes considered at a time
_ENOUGH_POSITIVES = 30  # of a gene in the sample, to trust it there
# Level and slope (per standard deviation, towards the zeros) of the zero inflation at the starts
# from a negative binomial with one size, from the mean of positive counts, and from a regressed
# size; slopes of the size itself. All found by greedy cover of the best of many random starts.
_AT_NB = ((-1.0, 0.0), (-3.0, 4.0), (-3.0, -4.0))
_AT_POSITIVES = ((-3.0, 4.0), (-3.0, -4.0))
_AT_REGRESSION = ((-1.0, -2.0),)
_SIZE_SLOPES = (8.0, -8.0)
# Gain in log-likelihood that a part must bring for its maximum to be taken for the only one: local
# maxima were found where regression or inflation explain little.
_EARNED = 8.0
_TRIAL_ITER = {1: 12, 2: 30}  # by when a start shows where it leads, by parts regressed


@dataclass(frozen=True)
class Problem:
    """A block of genes with everything that their likelihood needs.

    Attributes
    ----------
    family : Family
    counts : csr_array of shape (n_genes, n_cells)
        Positive counts by gene.
    bases : sequence of PartBasis
        One per part.
    offset, weights : Tensor of shape (n_cells,)
    """

    family: Family
    counts: sp.csr_array
    bases: Sequence[PartBasis]
    offset: Tensor
    weights: Tensor

    def objective(self, block: CountBlock, family: Family, bases: Sequence[PartBasis]) -> Objective:
        """Return the objective of a model on these cells."""
        return Objective(family, block, bases, self.offset, self.weights)

    def block(self) -> CountBlock:
        """Prepare the counts on the designs' device."""
        dtype, device = self.offset.dtype, self.offset.device
        return CountBlock(
            torch.as_tensor(self.counts.indptr.astype(np.int64), device=device),
            torch.as_tensor(self.counts.indices.astype(np.int64), device=device),
            torch.as_tensor(self.counts.data, device=device).to(dtype),
            self.counts.shape[1],
            tile=tile_cells([basis.U.shape[1] for basis in self.bases]),
        )

    def project(self, predictor: Tensor, basis: PartBasis) -> Tensor:
        """Coordinates in ``basis`` of what is nearest to a predictor, or to each of several."""
        return (self.weights[:, None] * basis.U).mT @ predictor / self.weights.sum()

    def constant(self, basis: PartBasis) -> Tensor:
        """Coordinates of the predictor that is nearest to one in all cells."""
        return self.project(torch.ones_like(self.weights), basis)

    def lift(self, theta: Tensor, old: Sequence[PartBasis], new: Sequence[PartBasis]) -> Tensor:
        """Project each part's predictor from one set of bases onto another."""
        widths = [basis.U.shape[1] for basis in old]
        parts = [
            part if a is b else part @ self.project(a.U, b).mT
            for part, a, b in zip(torch.split(theta, widths, dim=1), old, new, strict=True)
        ]
        return torch.cat(parts, 1)

    @property
    def is_simple(self) -> bool:
        """Whether it has one size per gene and no zero inflation: in practice, one maximum."""
        return len(self.bases) == 2 and self.bases[1].U.shape[1] <= 1

    def sample(self, size: int) -> "Problem":
        """Return the problem on about ``size`` cells, spread evenly."""
        cells = np.unique(np.linspace(0, self.counts.shape[1] - 1, size).astype(np.intp))
        index = torch.as_tensor(cells, device=self.offset.device)
        return replace(
            self,
            counts=sp.csr_array(self.counts[:, cells]),
            bases=[PartBasis(b.U[index], b.penalty) for b in self.bases],
            offset=self.offset[index],
            weights=self.weights[index],
        )


def search(problem: Problem, objective: Objective, *, max_iter: int, tol: float) -> Solution:
    """Maximise each gene's likelihood from informed starts and keep its best maximum.

    Parameters
    ----------
    problem : Problem
    objective : Objective
        The problem's own, of the model to fit.
    max_iter : int
        Newton iterations allowed to each run.
    tol : float
        Gain in log-likelihood below which a gene has converged.

    Returns
    -------
    Solution
        Of the last run, the one over all cells that started where the others led.
    """
    silence = _silence(problem)
    if problem.is_simple or problem.counts.shape[1] <= 2 * _SAMPLE:
        start = _explore(problem, objective.block, silence, max_iter=max_iter)
    else:
        small = problem.sample(_SAMPLE)
        start = _explore(small, small.block(), silence, max_iter=max_iter)
        rare = np.flatnonzero(np.diff(small.counts.indptr) < _ENOUGH_POSITIVES)
        if len(rare):
            whole = replace(problem, counts=sp.csr_array(problem.counts[rare]))
            start[rare] = _explore(
                whole, whole.block(), silence[torch.as_tensor(rare)], max_iter=max_iter
            )
    return maximize(objective, start, max_iter=max_iter, tol=tol)


def _explore(problem: Problem, block: CountBlock, silence: Tensor, *, max_iter: int) -> Tensor:
    """Return the most promising start of each gene; ``silence`` is added to its mean."""
    ones = torch.ones_like(problem.offset)[:, None]
    constant = PartBasis(ones, ones.new_zeros(1, 1))
    mean, size, *inflation = problem.bases
    width = mean.U.shape[1]
    moments = _moment_start(problem)
    moments[:, :width] += silence
    if problem.is_simple:
        return problem.lift(moments, [mean, constant], problem.bases)

    hill = _Hill(problem, block, max_iter)
    one_size, sizes = [mean, constant], [mean, size]
    nb = hill.climb(NegBinFamily(), one_size, moments)
    if inflation:
        first, *others = (torch.cat([nb.theta, zero], 1) for zero in _inflations(problem, _AT_NB))
        inflated = hill.climb(problem.family, [*one_size, *inflation], first)
        doubtful = inflated.value - nb.value < _EARNED
        hill.improve(inflated, problem.family, [*one_size, *inflation], others, doubtful)
        chained = problem.lift(inflated.theta, [*one_size, *inflation], problem.bases)
        if size.U.shape[1] <= 1:
            return chained

    flat = problem.lift(nb.theta, one_size, sizes)
    regression = hill.climb(NegBinFamily(), sizes, flat)
    lean = _size_direction(problem.objective(block, NegBinFamily(), sizes), flat)
    leaning = [flat + slope * lean for slope in _SIZE_SLOPES]
    doubtful = regression.value - nb.value < _EARNED
    hill.improve(regression, NegBinFamily(), sizes, leaning, doubtful)
    if not inflation:
        return regression.theta

    best = hill.climb(problem.family, problem.bases, chained)
    level = torch.cat([regression.theta, -torch.ones_like(flat[:, :1])], 1)
    sibling = hill.climb(problem.family, [*sizes, constant], level).theta
    positive = flat.clone()
    positive[:, :width] = _mean_of_positives(problem)[:, None] * problem.constant(mean) + silence
    starts = [
        problem.lift(sibling, [*sizes, constant], problem.bases),
        *(torch.cat([positive, zero], 1) for zero in _inflations(problem, _AT_POSITIVES)),
        *(torch.cat([regression.theta, zero], 1) for zero in _inflations(problem, _AT_REGRESSION)),
    ]
    everyone = torch.ones_like(best.converged)
    hill.improve(best, problem.family, problem.bases, starts, everyone)
    return best.theta


@dataclass(frozen=True)
class _Hill:
    """Loose maximisations of models on the same counts."""

    problem: Problem
    block: CountBlock
    max_iter: int

    def climb(self, family: Family, bases: Sequence[PartBasis], start: Tensor) -> Solution:
        """Maximise one model from one start."""
        objective = self.problem.objective(self.block, family, bases)
        return maximize(objective, start, max_iter=self.max_iter, tol=_LOOSE)

    def improve(
        self,
        best: Solution,
        family: Family,
        bases: Sequence[PartBasis],
        starts: Sequence[Tensor],
        doubtful: Tensor,
    ) -> None:
        """Try other starts for the doubtful genes, and put what is higher into ``best``."""
        genes = torch.nonzero(doubtful)[:, 0]
        if not (genes.numel() and starts):
            return
        n_regressed = sum(basis.U.shape[1] > 1 for basis in bases[1:])
        trial = maximize(
            self.problem.objective(self.block, family, bases),
            torch.cat([start[genes] for start in starts]),
            max_iter=min(self.max_iter, _TRIAL_ITER[n_regressed]),
            tol=_LOOSE,
            genes=genes.repeat(len(starts)),
        )
        value, which = trial.value.view(len(starts), -1).max(0)
        theta = trial.theta.view(len(starts), len(genes), -1)[which, torch.arange(len(genes))]
        higher = value > best.value[genes]
        best.theta[genes[higher]] = theta[higher]
        best.value[genes[higher]] = value[higher]


def _inflations(problem: Problem, shapes: Sequence[tuple[float, float]]) -> list[Tensor]:
    """Return zero inflations of given levels, and slopes towards each gene's zeros."""
    basis = problem.bases[2]
    if basis.U.shape[1] <= 1:
        shapes = shapes[:1]  # there is no slope
    level, direction = problem.constant(basis), _zeros_direction(problem, basis)
    return [intercept * level + slope * direction for intercept, slope in shapes]


def _size_direction(objective: Objective, theta: Tensor) -> Tensor:
    """Return the unit direction, of the size alone, in which the likelihood rises."""
    genes = torch.arange(len(theta), device=theta.device)
    gradient = torch.zeros_like(theta)
    size = objective.slices[1]
    gradient[:, size] = objective.evaluate(theta, genes).gradient[:, size]
    tiny = torch.finfo(theta.dtype).tiny
    return gradient / gradient.norm(dim=1, keepdim=True).clamp_min(tiny)


def _moment_start(problem: Problem) -> Tensor:
    """Match each gene's mean and variance over all cells, then lean towards its counts.

    The second step is a Poisson Newton step from the constant mean, cut to a length at which the
    quadratic model still holds.
    """
    U, weights = problem.bases[0].U, problem.weights
    tiny = torch.finfo(U.dtype).eps
    exposure = problem.offset + weights.log()
    total = _contract(problem.counts, weights).clamp_min(tiny)
    mean = total / weights.sum()
    variance = _contract(problem.counts**2, weights) / weights.sum() - mean**2
    size = (mean**2 / (variance - mean).clamp_min(tiny)).clamp(*_START_SIZES)
    level = total.log() - exposure.logsumexp(0)
    constant = level[:, None] * problem.constant(problem.bases[0])
    lean = _contract(problem.counts, weights[:, None] * U) / total[:, None]
    lean -= exposure.softmax(0) @ U
    lean *= (_LONGEST_LEAN / lean.norm(dim=1, keepdim=True).clamp_min(tiny)).clamp_max(1.0)
    return torch.cat([constant + lean, size.log()[:, None]], 1)


def _silence(problem: Problem) -> Tensor:
    """Step in the mean's coordinates that silences the cells in which a gene cannot have counts.

    Cells that no positive count constrains, such as a cell type in which the gene is silent, have
    their maximum at a mean of zero. Where a direction lowers all of them alike and touches no other
    cell, the start goes down it far enough for the likelihood to be flat, instead of a unit at a
    time. Zero for all other genes.
    """
    U, penalty = problem.bases[0]
    rank = U.shape[1]
    step = U.new_zeros(problem.counts.shape[0], rank)
    total = _contract(problem.counts, problem.weights)
    if penalty.any():
        return step
    positive = problem.counts.sign()
    weighted = problem.weights[:, None] * U
    seen = U.new_zeros(len(step), rank, rank)
    for i in range(rank):  # a row at a time: cells x rank^2 may be more than memory holds
        seen[:, i] = _contract(positive, weighted[:, i : i + 1] * U)
    curvature, vectors = torch.linalg.eigh(seen)
    free = (curvature < _UNSEEN * curvature[:, -1:]) & (total > 0)[:, None]
    genes = torch.nonzero(free.any(1))[:, 0]
    for some in torch.split(genes, max(1, _SILENCE_ENTRIES // U.numel())):
        basis = vectors[some] * free[some][:, None, :]
        project = basis @ basis.mT
        reach = (U @ basis).square().sum(2)  # genes x cells: how much each cell is free to move
        target = -(reach > _UNSEEN).to(U.dtype).mT
        wish = problem.project(target, problem.bases[0])
        down = (project @ wish.mT[:, :, None])[:, :, 0]
        moved = U @ down.mT
        lowers_alike = ((moved - target).abs() < _ALIKE).all(0)
        depth = _SILENT_DEPTH + total[some].log().clamp_min(0.0)
        step[some] = torch.where(lowers_alike, depth, 0.0)[:, None] * down
    return step


def _mean_of_positives(problem: Problem) -> Tensor:
    """Log of each gene's mean positive count at the average offset."""
    total = _contract(problem.counts, problem.weights)
    cells = _contract(problem.counts.sign(), problem.weights)
    offset = problem.offset @ problem.weights / problem.weights.sum()
    return (total / cells).clamp_min(torch.finfo(total.dtype).eps).nan_to_num(1.0).log() - offset


def _zeros_direction(problem: Problem, basis: PartBasis) -> Tensor:
    """Direction in the zero inflation's predictor along which zeros become more frequent.

    The part of the zeros' projection that is not constant, with standard deviation one.
    """
    level = problem.constant(basis)
    weighted = problem.weights[:, None] * basis.U
    towards = -_contract(problem.counts.sign(), weighted)  # of the positives: up to a constant
    towards -= torch.outer(towards @ level, level) / (level @ level).clamp_min(
        torch.finfo(level.dtype).tiny
    )
    return towards / towards.norm(dim=1, keepdim=True).clamp_min(torch.finfo(level.dtype).eps)


def _contract(counts: sp.csr_array, over_cells: Tensor) -> Tensor:
    """Matrix product of sparse counts with a dense array over cells."""
    return torch.as_tensor(counts @ over_cells.cpu().numpy().astype(float)).to(over_cells)
