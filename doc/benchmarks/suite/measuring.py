"""Fits of a case by several tools in turn, each in a process of its own, all on one thread."""

import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import likelihood
import numpy as np
import scipy.sparse as sp
from scipy.io import mmwrite

HERE = Path(__file__).parent
R_TOOLS = ("glmGamPoi", "glmmTMB", "pscl")
ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA")
}
SLOW = 20.0  # seconds; a fit that takes longer is not repeated


class MissingToolError(Exception):
    """A tool is not installed."""


class Worker:
    """A tool's process; see ``worker.py``, which says what is exchanged with it."""

    def __init__(self, tool, folder):
        self.tool = tool
        self.folder = folder / tool
        self.folder.mkdir()
        self.seconds, self.cpu_seconds = [], []
        with (self.folder / "log.txt").open("w") as log:
            try:
                self.process = subprocess.Popen(  # noqa: S603 - our own code
                    [*_program(tool), str(self.folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=os.environ | ONE_THREAD,
                    text=True,
                )
            except FileNotFoundError as error:
                raise MissingToolError(f"no {error.filename}") from error
        answer = self._answer()
        if "missing" in answer:
            self.stop()
            raise MissingToolError(answer["missing"])
        self.version = answer["version"]

    def fit(self):
        """Fit once more, unless that takes long."""
        if self.seconds and self.seconds[0] > SLOW:
            return
        self.process.stdin.write("fit\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.seconds.append(answer["seconds"])
        self.cpu_seconds.append(answer["cpu_seconds"])

    def finish(self):
        """End the process and return what it used and found."""
        self.process.stdin.close()
        memory = self._answer()
        self.process.wait()
        found = {p.stem: np.loadtxt(p, delimiter=",", ndmin=2) for p in self.folder.glob("*.csv")}
        converged, n_iter = found.pop("converged", None), found.pop("n_iter", None)
        return memory, found, converged, n_iter

    def stop(self):
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            log = (self.folder / "log.txt").read_text()
            raise RuntimeError(f"{self.tool} ended before its answer:\n{log}")
        return json.loads(line)


def _program(tool):
    if tool in R_TOOLS:
        return ["Rscript", str(HERE / "peers.R"), tool]
    return [sys.executable, str(HERE / "worker.py"), tool]


def _write(case, folder, *, for_r):
    """Write what the workers read."""
    (folder / "case.pickle").write_bytes(pickle.dumps(case))
    if for_r:
        mmwrite(folder / "counts.mtx", sp.coo_array(case.counts))
        for part, design in case.designs.items():
            np.savetxt(folder / f"{part}.csv", design, delimiter=",")
        if case.offset is not None:
            np.savetxt(folder / "offset.csv", case.offset)


def compare(case, tools, repeats):
    """Fit a case with several tools.

    The first fit of each, which may compile, is reported by itself and is one of the repeats only
    if it takes more than 20 seconds; then there are no others.

    Returns
    -------
    rows : list of dict
        One for each tool that is installed.
    missing : dict of str to str
        Why the others are missing.
    """
    missing, fits = {}, []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        _write(case, folder, for_r=bool(set(tools) & set(R_TOOLS)))
        workers = []
        for tool in tools:
            try:
                workers.append(Worker(tool, folder))
            except MissingToolError as error:
                missing[tool] = str(error)
            else:
                stack.callback(workers[-1].stop)
        for _ in range(1 + repeats):
            for worker in workers:
                worker.fit()
                print(f"  {worker.tool}: {worker.seconds[-1]:.3f} s", flush=True)
        for worker in workers:
            memory, *found = worker.finish()
            fits.append((worker, memory, *found))
    values = {
        worker.tool: likelihood.per_gene(case, coefficients) for worker, _, coefficients, *_ in fits
    }
    same_model = [
        values[worker.tool] for worker, _, coefficients, *_ in fits if "mean" in coefficients
    ]
    known = [] if case.maximum is None else [case.maximum]
    best = np.fmax.reduce([np.where(np.isfinite(v), v, -np.inf) for v in [*same_model, *known]])
    rows = []
    for worker, memory, coefficients, converged, n_iter in fits:
        value = values[worker.tool]
        finite = np.isfinite(value)
        below = (best - value)[finite]
        rows.append(
            {
                "tool": worker.tool,
                "version": worker.version,
                "seconds": worker.seconds[1:] or worker.seconds,
                "median_seconds": statistics.median(worker.seconds[1:] or worker.seconds),
                "first_seconds": worker.seconds[0],
                "share_of_a_core": sum(worker.cpu_seconds) / sum(worker.seconds),
                **memory,
                "log_likelihood": float(value[finite].sum()),
                "total_below": float(below.sum()),
                "worst_gene_below": float(below.max()),
                "same_model": "mean" in coefficients,
                "failed_genes": int((~finite).sum()),
                "unconverged_genes": None if converged is None else int((converged == 0).sum()),
                "mean_n_iter": None if n_iter is None else float(n_iter.mean()),
            }
        )
    return rows, missing
