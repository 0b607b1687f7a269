"""How time and memory of sc_glm alone grow: each point is measured in a process of its own.

``python studies.py STUDY POINT REPEATS`` measures one point and prints it as JSON.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
import time
import warnings

import numpy as np
import scipy.sparse as sp
from measuring import HERE, ONE_THREAD, SLOW
from memory import current_memory, peak_memory, reset_peak

ENTRIES = 4_000_000  # simulated at a time


def simulate(n_cells, n_genes, design, *, mean=-3.3, spread=1.2, seed=0):
    """Draw sparse NB counts by blocks of cells: 93% zeros unless the log mean is another."""
    rng = np.random.default_rng(seed)
    coef = rng.normal(scale=0.3, size=(design.shape[1], n_genes))
    coef[0] = rng.normal(mean, spread, size=n_genes)
    r = rng.lognormal(sigma=0.5, size=n_genes)
    step = max(1, ENTRIES // n_genes)
    blocks = []
    for start in range(0, n_cells, step):
        mu = np.exp(design[start : start + step] @ coef)
        blocks.append(sp.csr_array(rng.negative_binomial(r, r / (r + mu)).astype(np.int32)))
    return sp.vstack(blocks, format="csr")


def covariates(n_cells, n_columns):
    """Return a design of an intercept and normal covariates."""
    rng = np.random.default_rng(1)
    return np.column_stack([np.ones(n_cells), rng.normal(size=(n_cells, n_columns - 1))])


def groups(n_cells, n_groups):
    """Return a design of an intercept and the indicators of all groups but the first."""
    labels = np.random.default_rng(1).integers(0, n_groups, size=n_cells)
    design = (labels[:, None] == np.arange(n_groups)).astype(float)
    design[:, 0] = 1.0
    return design


def timed(function, repeats):
    """Return medians of some calls after the first, or the first if it takes long.

    They are seconds of this process, and by the clock, under the names of the table's columns.
    """
    seconds, clock = [], []
    while not clock or (len(clock) <= repeats and clock[0] < SLOW):
        gc.collect()
        start, clock_start = time.process_time(), time.perf_counter()
        function()
        seconds.append(time.process_time() - start)
        clock.append(time.perf_counter() - clock_start)
    return {
        "seconds": statistics.median(seconds[1:] or seconds),
        "by the clock": statistics.median(clock[1:] or clock),
    }


def per_entry(seconds, counts):
    """Return nanoseconds for each cell and gene."""
    return {"ns per entry": 1e9 * seconds / counts.shape[0] / counts.shape[1]}


def above(before):
    """Return MiB by which the peak exceeds an earlier reading of the memory."""
    return None if before is None else (peak_memory() - before) / 2**20


def growth(repeats, *, n_cells=5000, n_genes=500, n_columns=2, n_jobs=1):
    """Time a fit of simulated counts."""
    from sc_glm import NegBinRegressor  # noqa: PLC0415

    X = covariates(n_cells, n_columns)
    counts = simulate(n_cells, n_genes, X)
    model = NegBinRegressor(n_jobs=n_jobs)
    time_of = timed(lambda: model.fit(X[:, 1:], counts), repeats)
    if n_jobs > 1:  # other processes compute
        return {"by the clock": time_of["by the clock"]}
    return time_of | per_entry(time_of["seconds"], counts)


def fit_memory(repeats, design, *, n_cells, n_genes, n_columns):
    """Fit a large matrix; compare with what its conversion to CSC costs."""
    from sc_glm import NegBinRegressor  # noqa: PLC0415

    X = design(n_cells, n_columns)
    counts = simulate(n_cells, n_genes, X)
    matrix = sum(x.nbytes for x in (counts.data, counts.indices, counts.indptr))
    NegBinRegressor().fit(X[:1000, 1:], counts[:1000])  # loads what the first fit loads
    conversion = timed(counts.tocsc, repeats)["seconds"]
    before = current_memory()
    reset_peak()
    time_of = timed(lambda: NegBinRegressor().fit(X[:, 1:], counts), repeats)
    return {
        "zeros": 1 - counts.nnz / n_cells / n_genes,
        "matrix, MiB": matrix / 2**20,
        "peak above, MiB": above(before),
        **time_of,
        **per_entry(time_of["seconds"], counts),
        "CSR to CSC, seconds": conversion,
    }


def sample_memory(repeats, *, n_cells, n_genes):
    """Draw counts of all cells and genes from a fit."""
    from sc_glm import NegBinRegressor  # noqa: PLC0415

    X = covariates(n_cells, 2)[:, 1:]
    counts = simulate(n_cells, n_genes, covariates(n_cells, 2))
    model = NegBinRegressor().fit(X, counts)
    before = current_memory()
    reset_peak()
    time_of = timed(lambda: model.sample(X, random_state=0), repeats)
    peak = above(before)
    return {
        "matrix, MiB": model.sample(X, random_state=0).nbytes / 2**20,
        "peak above, MiB": peak,
        **time_of,
        **per_entry(time_of["seconds"], counts),
    }


def kernel(repeats, parts, n_regressed, *, fused=False, n_cells=20_000, n_genes=64, n_columns=8):
    """Time one pass of the objective: value, gradient and Hessian of a block of genes.

    Also the terms of entries alone, without the sums over cells by which they become these; and the
    tiles alone, with predictors and counts in place.
    """
    import torch  # noqa: PLC0415

    from sc_glm._design.design import PartDesign  # noqa: PLC0415
    from sc_glm._likelihood.family import NegBinFamily, ZINBFamily  # noqa: PLC0415
    from sc_glm._likelihood.fused import fused_tile  # noqa: PLC0415
    from sc_glm._solver.gene_block import Designs, Settings, build_problem, one_thread  # noqa: PLC0415

    X = covariates(n_cells, n_columns)
    counts = simulate(n_cells, n_genes, X, mean=-1.6, spread=0.3)
    regressed, constant = PartDesign.of(X), PartDesign.of(X[:, :1])
    designs = {part: regressed if i < n_regressed else constant for i, part in enumerate(parts)}
    family = ZINBFamily() if "zero_inflation" in parts else NegBinFamily()
    settings = Settings(max_iter=1, tol=1.0, device=torch.device("cpu"), dtype=torch.float64)
    with one_thread(), torch.inference_mode():
        problem = build_problem(
            family,
            sp.csr_array(counts.T, dtype=float),
            Designs(designs, np.zeros(n_cells), np.ones(n_cells)),
            settings,
        )
        objective = problem.model_objective()
        plain = objective.tile_terms
        if fused:
            objective.tile_terms = fused_tile(family)
        given = []

        def noting(predictors, y, zeros=None, small=None):
            given.append(([x.clone() for x in predictors], y))
            return plain(predictors, y, zeros, small)

        flat = torch.cat([problem.intercept(basis) for basis in problem.bases])
        theta = -flat.expand(n_genes, -1).contiguous()
        genes = torch.arange(n_genes)

        def terms():
            for tile, rows in objective.pieces(n_genes):
                objective.terms(theta[rows], genes[rows], tile)

        def tiles():
            for predictors, y in given:
                tile([predictors[0].clone(), *predictors[1:]], y, None)

        tile, objective.tile_terms = objective.tile_terms, noting
        terms()
        objective.tile_terms = tile
        of_tiles = timed(tiles, 5 * repeats)["seconds"]
        of_terms = timed(terms, 5 * repeats)["seconds"]
        time_of = timed(lambda: objective.evaluate(theta, genes), 5 * repeats)
    zeros = 1 - counts.nnz / n_cells / n_genes
    return {
        "zeros": zeros,
        **time_of,
        **per_entry(time_of["seconds"], counts),
        "terms alone": per_entry(of_terms, counts)["ns per entry"],
        "tiles alone": per_entry(of_tiles, counts)["ns per entry"],
    }


NB, ZINB = ("mean", "dispersion"), ("mean", "dispersion", "zero_inflation")
# By study and point: the function and its arguments.
STUDIES = {
    "growth": {
        **{
            f"cells {n}": (growth, {"n_cells": n, "n_genes": 200})
            for n in (12_500, 25_000, 50_000, 100_000, 200_000)
        },
        **{f"genes {n}": (growth, {"n_genes": n}) for n in (125, 250, 500, 1000, 2000, 4000)},
        **{f"columns {n}": (growth, {"n_columns": n}) for n in (2, 4, 8, 15, 30)},
        **{f"n_jobs {n}": (growth, {"n_genes": 4000, "n_jobs": n}) for n in (1, 2)},
    },
    "memory": {
        "fit, 200000 x 2000, 2 groups": (
            fit_memory,
            {"design": groups, "n_cells": 200_000, "n_genes": 2000, "n_columns": 2},
        ),
        "fit, 200000 x 2000, a covariate": (
            fit_memory,
            {"design": covariates, "n_cells": 200_000, "n_genes": 2000, "n_columns": 2},
        ),
        "fit, 1000000 x 200, 10 groups": (
            fit_memory,
            {"design": groups, "n_cells": 1_000_000, "n_genes": 200, "n_columns": 10},
        ),
        "sample, 5000 x 3000": (sample_memory, {"n_cells": 5000, "n_genes": 3000}),
    },
    "kernel": {
        f"{name}{', compiled' * fused}": (kernel, {**options, "fused": fused})
        for name, options in {
            "NB, one size": {"parts": NB, "n_regressed": 1},
            "NB, size regressed": {"parts": NB, "n_regressed": 2},
            "ZINB, one size": {"parts": ZINB, "n_regressed": 1},
            "ZINB, all parts regressed": {"parts": ZINB, "n_regressed": 3},
        }.items()
        for fused in (False, True)
    },
}


def measure(study, repeats):
    """Return a row for each point of a study."""
    rows = []
    for point in STUDIES[study]:
        done = subprocess.run(  # noqa: S603 - our own code
            [sys.executable, str(HERE / "studies.py"), study, point, str(repeats)],
            env=os.environ | ONE_THREAD,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        rows.append({"point": point, **json.loads(done.stdout)})
        print(f"  {rows[-1]}", flush=True)
    return rows


if __name__ == "__main__":
    _, name, at, times = sys.argv
    warnings.simplefilter("ignore")
    run, options = STUDIES[name][at]
    print(json.dumps(run(int(times), **options)))
