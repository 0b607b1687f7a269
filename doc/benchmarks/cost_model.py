"""Measure how long fits take and how much memory, and say what larger ones would need.

``python doc/benchmarks/cost_model.py`` fits simulated counts of several sizes on one thread, each
in a process of its own, and then the coefficients of two models of the cost, by nonnegative least
squares. It writes ``cost_model.txt`` beside itself, which the page on scale includes. It takes two
minutes, on a machine that does nothing else.
"""

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.optimize import nnls

from sc_glm import NegBinRegressor

CELLS = (4_000, 16_000, 64_000)
GENES = (32, 128)
COLUMNS = (2, 5, 10)  # of the mean's design, the intercept among them; one more for the dispersion
MEAN_COUNT = 0.07  # a geometric mean over genes: nine zeros in ten
BLOCK_COUNTS = 1_000_000  # positive, in an automatic block of genes
LARGER = [
    (2_000, 1_000, 2),
    (200_000, 2_000, 2),
    (1_000_000, 20_000, 5),
    (10_000_000, 20_000, 2),
    (10_000_000, 20_000, 5),
]
OUTPUT = Path(__file__).with_suffix(".txt")
PAGE = r""".. Written by cost_model.py.

.. math::

   \text{{seconds}} &= \text{{genes}} \times ({time[0]} + \text{{cells}} \times
   ({time[1]} + {time[2]} \times \text{{columns}}^2)) \\
   \text{{MB beside the counts}} &= {memory[0]} \times \text{{cells}} \times \text{{columns}} +
   {memory[1]} \times \text{{positive counts, at most {block:,}}}

Seconds are off by {error:.0%} or less in half of the {n_fits} fits that the model comes from, of
{cells[0]:,} to {cells[1]:,} cells, {genes[0]} to {genes[1]} genes and {columns[0]} to {columns[1]}
columns, where {density:.0%} of the counts are positive. What it says of larger fits on one core:

.. list-table::
   :header-rows: 1

{rows}
"""


def simulate(n_cells, n_genes, n_columns):
    """Return covariates and counts by gene, of which one in ten is positive."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_cells, n_columns - 1))
    genes = []
    for level in rng.normal(np.log(MEAN_COUNT), 1.0, n_genes):
        mean = np.exp(level + X @ rng.normal(0, 0.3, n_columns - 1))
        genes.append(sp.csc_array(rng.poisson(rng.gamma(1.5, mean / 1.5))[:, None]))
    return X, sp.hstack(genes, format="csc")


def measure(n_cells, n_genes, n_columns):
    """Return the cost of one fit, and the memory that was in use before."""
    X, y = simulate(n_cells, n_genes, n_columns)
    warnings.simplefilter("ignore")  # genes that are hard to fit are part of the cost
    NegBinRegressor().fit(X[:200], y[:200])  # what is loaded at the first fit
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    NegBinRegressor().fit(X, y)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "positive": y.nnz, "megabytes": 1.024e-3 * (after - before)}


def measure_apart(*size):
    """Measure in a process of its own."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, __file__, *map(str, size)],
        env=os.environ | one_thread,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(("cells", "genes", "columns"), size, strict=True)) | json.loads(done.stdout)


def time_terms(cells, genes, columns):
    """Return what the seconds of a fit are a sum of."""
    return np.column_stack([genes, genes * cells, genes * cells * columns**2])


def memory_terms(cells, columns, positive):
    """Return what the megabytes beside the counts are a sum of."""
    return np.column_stack([cells * columns, np.minimum(positive, BLOCK_COUNTS)])


def spelled(seconds):
    """Return a time in the unit that suits it."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} seconds"


def power(x):
    """Return a number as LaTeX has it."""
    digits, exponent = f"{x:.1e}".split("e")
    return rf"{digits} \cdot 10^{{{int(exponent)}}}"


def page(table):
    """Return the text that the page on scale includes."""
    size = [table[name].to_numpy(dtype=float) for name in ("cells", "genes", "columns")]
    seconds = table["seconds"].to_numpy()
    terms = time_terms(*size)
    by_time, _ = nnls(terms / seconds[:, None], np.ones(len(seconds)))  # relative errors
    positive = table["positive"].to_numpy()
    by_memory, _ = nnls(memory_terms(size[0], size[2], positive), table["megabytes"].to_numpy())
    density = float((positive / (size[0] * size[1])).mean())
    rows = [("cells", "genes", "columns", "time", "counts in memory", "beside them")]
    for cells, genes, columns in LARGER:
        time_of = float((time_terms(cells, genes, columns) @ by_time)[0])
        in_block = density * cells * genes
        beside = float((memory_terms(cells, columns, in_block) @ by_memory)[0]) / 1000
        counts = 8e-9 * density * cells * genes  # a single-precision value and its row
        bounded_size = (f"{cells:,}", f"{genes:,}", f"{columns}")
        rows.append(
            (
                *bounded_size,
                spelled(time_of),
                f"{counts:,.2g} GB" if counts < 10 else f"{counts:,.0f} GB",
                f"{beside:,.2g} GB",
            )
        )
    return PAGE.format(
        time=[power(coef) for coef in by_time],
        memory=[power(coef) for coef in by_memory],
        error=np.median(np.abs(terms @ by_time / seconds - 1)),
        n_fits=len(table),
        cells=(min(CELLS), max(CELLS)),
        genes=(min(GENES), max(GENES)),
        columns=(min(COLUMNS), max(COLUMNS)),
        density=density,
        block=BLOCK_COUNTS,
        rows="\n".join(
            f"   {' ' if i else '*'} - {cell}" for row in rows for i, cell in enumerate(row)
        ),
    )


def main():
    """Measure all sizes, and write the page's part."""
    table = pd.DataFrame([measure_apart(*size) for size in product(CELLS, GENES, COLUMNS)])
    print(table.to_string(index=False))
    OUTPUT.write_text(page(table))
    print(OUTPUT.read_text())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(*map(int, sys.argv[1:]))))
    else:
        main()
