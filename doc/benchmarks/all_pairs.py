"""Time differential expression between all pairs of cell types against the fit itself.

``python doc/benchmarks/all_pairs.py [--repeats N] [--genes N]`` fits the blood cells of the
benchmark suite (nine types, the offset a cell's log total) and tests all 36 pairs of types, in
turns. It prints the medians over the rounds in seconds of the processor, on one thread, their
ratio, the log-likelihood of the fit and how many contrasts have which test. Most genes are silent
in some type, so that likelihood ratios and the ends of their intervals are a part of the time.

With ``--methods``, other tests of the same pairs are timed as well. The environment variable
``SC_GLM_DATA`` names the folder of the data. Without it, or with ``--simulated``, counts are drawn
from the model.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.inference import differential_expression

SUITE = Path(__file__).resolve().parent / "suite"


def simulate(n_genes):
    """Return types, log depths and counts of four types, of which some are silent."""
    rng = np.random.default_rng(0)
    codes, depth = rng.integers(0, 4, 400), rng.normal(0, 0.5, 400)
    mean = np.exp(rng.normal(-1, 1, (4, n_genes))) * (rng.random((4, n_genes)) > 0.3)
    counts = rng.poisson(rng.gamma(2, mean[codes] / 2) * np.exp(depth)[:, None])
    return codes, depth, sp.csr_array(counts)


def read(n_genes):
    """Return types, log depths and counts of the blood cells of the suite."""
    sys.path.insert(0, str(SUITE))
    import cases  # noqa: PLC0415 - needs the data

    case = cases.pbmc(offset=True)
    codes = np.unique(case.designs["mean"], axis=0, return_inverse=True)[1].ravel()
    return codes, case.offset, case.counts[:, : n_genes or case.counts.shape[1]]


def timed(job):
    """Return the processor time of a call, and its value."""
    begin = time.process_time()
    value = job()
    return time.process_time() - begin, value


def main():
    """Run all rounds, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--genes", type=int, default=0, help="number of genes; 0 for all")
    parser.add_argument("--simulated", action="store_true", help="draw the counts")
    parser.add_argument("--methods", nargs="*", default=[], help="further methods, such as score")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # genes that are silent in a type are the point
    is_simulated = args.simulated or "SC_GLM_DATA" not in os.environ
    codes, depth, counts = simulate(args.genes or 60) if is_simulated else read(args.genes)
    obs = pd.DataFrame({"type": [f"type {code}" for code in codes], "log_depth": depth})
    types = sorted(obs["type"].unique())
    pairs = {f"{a} - {b}": ("type", a, b) for a, b in itertools.combinations(types, 2)}
    model = make_pipeline(FormulaTransformer("~ type", offset="log_depth"), NegBinRegressor())
    methods = ["auto", *args.methods]
    model.fit(obs, counts)  # warm up
    seconds = {name: [] for name in ("fit", *methods)}
    for _ in range(args.repeats):
        used, _ = timed(lambda: model.fit(obs, counts))
        seconds["fit"].append(used)
        for method in methods:
            used, table = timed(
                lambda method=method: differential_expression(
                    model, obs, counts, pairs, method=method
                )
            )
            seconds[method].append(used)
            if method == "auto":
                tests = table["test"].value_counts().to_dict()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    fit = medians.pop("fit")
    print(f"{counts.shape[1]} genes, {counts.shape[0]} cells, {len(pairs)} pairs, one thread")
    print(f"log-likelihood {model[-1].log_likelihood_.sum():.4f}, tests {tests}")
    print(f"fit: {fit:.2f} s")
    for method, value in medians.items():
        print(f"all pairs, method={method!r}: {value:.2f} s, {value / fit:.2f} fits")


if __name__ == "__main__":
    main()
