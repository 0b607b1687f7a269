"""Time what follows a fit, side by side with another checkout of the package.

``python doc/benchmarks/diagnostics_speed.py [OTHER] [--repeats N] [--genes N]`` fits the blood
cells of the benchmark suite (nine types, the offset a cell's log total). It times robust standard
errors and tests, log-probabilities, tests of zeros and goodness of fit. With a folder ``OTHER``
that holds another checkout, both run in turns: one process of each in a round. The medians over the
rounds are compared. Times are seconds of the processor, on one thread. The log-likelihoods of the
fits stand beside them. The last column is the largest relative difference of a result.

The environment variable ``SC_GLM_DATA`` names the folder of the data. Without it, or with
``--simulated``, counts are drawn from the model.
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
SUITE = HERE.parent / "suite"


def build(n_genes, *, is_simulated):
    """Return a model, the covariates of cells and their counts."""
    import pandas as pd  # noqa: PLC0415 - imported by workers only, like the package
    import scipy.sparse as sp  # noqa: PLC0415

    from sc_glm import NegBinRegressor  # noqa: PLC0415

    if is_simulated:
        rng = np.random.default_rng(0)
        codes, offset = rng.integers(0, 3, 300), rng.normal(0, 0.5, 300)
        design = np.eye(3)[codes]
        design[:, 0] = 1.0
        mu = np.exp(rng.normal(-1, 1, n_genes or 30) + design[:, 1:] @ [[0.5], [-0.5]])
        counts = sp.csr_array(rng.poisson(rng.gamma(2, mu / 2) * np.exp(offset)[:, None]))
    else:
        sys.path.insert(0, str(SUITE))
        import cases  # noqa: PLC0415

        case = cases.pbmc(offset=True)
        design, offset, counts = case.designs["mean"], case.offset, case.counts
        counts = counts[:, : n_genes or counts.shape[1]]
    columns = [f"mean__x{i}" for i in range(design.shape[1])]
    X = pd.DataFrame(design, columns=columns)
    X["offset__depth"] = offset
    return NegBinRegressor(), X, counts


def work(args):
    """Time each function once, and save seconds and results in a file."""
    from sc_glm import diagnostics, inference  # noqa: PLC0415

    model, X, counts = build(args.genes, is_simulated=args.simulated)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, counts)  # warm up
        jobs = {
            "fit": lambda: model.fit(X, counts).log_likelihood_,
            "standard_errors(kind='robust')": lambda: inference.standard_errors(
                model, X, counts, kind="robust"
            )["mean"],
            "wald_test(kind='robust')": lambda: inference.wald_test(
                model, X, counts, "x1 = 0", kind="robust"
            )[["statistic"]],
            "log_prob": lambda: model.log_prob(X, counts),
            "zero_test": lambda: diagnostics.zero_test(model, X, counts)[["statistic"]],
            "goodness_of_fit": lambda: diagnostics.goodness_of_fit(
                model, X, counts, random_state=0
            )[["pearson", "deviance", "ks_statistic"]],
        }
        results = {}
        for name, job in jobs.items():
            begin = time.process_time()
            value = job()
            results[name] = time.process_time() - begin, np.asarray(value, dtype=float)
    Path(args.worker).write_bytes(pickle.dumps(results))


def run(checkout, args):
    """Run a worker with the package of a checkout, and return what it saved."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results"
        options = ["--worker", str(file), *(["--simulated"] if args.simulated else [])]
        options += ["--genes", str(args.genes)]
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(HERE), *options]
        subprocess.run(command, check=True, env=environment)  # noqa: S603 - our own
        return pickle.loads(file.read_bytes())  # noqa: S301 - our own


def largest_difference(a, b):
    """Return the largest relative difference of two results."""
    known = np.isfinite(a) & np.isfinite(b) & (a != 0)
    return np.abs(b[known] / a[known] - 1).max(initial=0.0)


def main():
    """Run all rounds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("other", nargs="?", help="folder of another checkout")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--genes", type=int, default=0, help="number of genes; 0 for all")
    parser.add_argument("--simulated", action="store_true", help="draw the counts")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.simulated |= "SC_GLM_DATA" not in os.environ
    if args.worker:
        work(args)
        return
    checkouts = {"this": HERE.parents[2]} | ({"other": Path(args.other)} if args.other else {})
    rounds = {name: [] for name in checkouts}
    for _ in range(args.repeats):
        for name, checkout in checkouts.items():
            rounds[name].append(run(checkout.resolve(), args))
    for name, runs in rounds.items():
        print(f"log-likelihood, {name}: {runs[0]['fit'][1].sum():.4f}")
    names = list(checkouts)
    heads = ["", *(f"{x}, s" for x in names), *(f"{x}, fits" for x in names)]
    heads += ["times faster", "largest difference"] if args.other else []
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    seconds = {
        name: {job: np.median([run[job][0] for run in runs]) for job in runs[0]}
        for name, runs in rounds.items()
    }
    for job in seconds["this"]:
        row = [job, *(f"{seconds[x][job]:.2f}" for x in names)]
        row += [f"{seconds[x][job] / seconds[x]['fit']:.2f}" for x in names]
        if args.other:
            row.append(f"{seconds['other'][job] / seconds['this'][job]:.1f}")
            pair = (rounds[x][0][job][1] for x in ("other", "this"))
            row.append(f"{largest_difference(*pair):.1e}")
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
