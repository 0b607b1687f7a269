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
SLOW = 20.0  # seconds; a fit that takes more is not repeated


class MissingToolError(Exception):
    """A tool is not installed."""


class Worker:
    """A tool's process; see ``worker.py``, which says what is exchanged with it."""

    def __init__(self, tool, folder):
        self.tool = tool
        self.folder = folder / tool
        self.folder.mkdir()
        self.seconds, self.clock = [], []
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
        self.clock.append(answer["clock"])
        print(f"  {self.tool}: {self.seconds[-1]:.3f} s", flush=True)

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
        for worker in workers:
            memory, *found = worker.finish()
            fits.append((worker, memory, *found))
    return _judge(case, fits), missing


def _judge(case, fits):
    """Make a row of each fit, with its log-likelihood beside the best that is known."""
    values = [likelihood.per_gene(case, coefficients) for _, _, coefficients, *_ in fits]
    same_model = ["mean" in coefficients for _, _, coefficients, *_ in fits]
    candidates = [value for value, same in zip(values, same_model, strict=True) if same]
    if case.maximum is not None:
        candidates.append(case.maximum)
    rows = []
    for (worker, memory, _, converged, n_iter), value, same in zip(
        fits, values, same_model, strict=True
    ):
        finite = np.isfinite(value)
        below = (np.fmax.reduce(candidates) - value)[finite] if same else np.array([])
        seconds, clock = worker.seconds[1:] or worker.seconds, worker.clock[1:] or worker.clock
        rows.append(
            {
                "tool": worker.tool,
                "version": worker.version,
                "median_seconds": statistics.median(seconds),
                "median_clock": statistics.median(clock),
                "seconds": seconds,
                "first_seconds": worker.seconds[0],
                **memory,
                "log_likelihood": float(value[finite].sum()),
                "same_model": same,
                "total_below": float(below.sum()) if below.size else None,
                "worst_gene_below": float(below.max()) if below.size else None,
                "failed_genes": int((~finite).sum()),
                "unconverged_genes": None if converged is None else int((converged == 0).sum()),
                "mean_n_iter": None if n_iter is None else float(n_iter.mean()),
            }
        )
    return rows
