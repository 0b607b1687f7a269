"""One tool and one case in a process of their own: ``python worker.py TOOL FOLDER``.

It answers in lines of JSON: first the tool's version, or why there is none; then, to each line
``fit``, the seconds of one fit, of the processor and by the clock; when its input ends, the memory.
The estimates are then in the folder.
"""

import gc
import json
import os
import pickle
import sys
import time
from pathlib import Path

import numpy as np
from memory import current_memory, peak_memory, reset_peak
from tools import prepare


def write(estimates, folder):
    """Write a file for each part, columns x genes, and what the tool says of the genes."""
    for part, coefficients in estimates.coefficients.items():
        np.savetxt(folder / f"{part}.csv", coefficients, delimiter=",")
    for name in ("converged", "n_iter"):
        values = getattr(estimates, name)
        if values is not None:
            np.savetxt(folder / f"{name}.csv", values, fmt="%d")


def main(tool, folder):
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what tools print is no answer

    def say(**answer):
        print(json.dumps(answer), file=answers, flush=True)

    try:
        case = pickle.loads((folder.parent / "case.pickle").read_bytes())  # noqa: S301 - our own
        fit, version = prepare(tool, case)
    except ImportError as error:
        say(missing=str(error))
        return
    say(version=version)
    before = current_memory()
    reset_peak()
    estimates = None
    for _ in sys.stdin:
        estimates = None
        gc.collect()
        start, clock = time.process_time(), time.perf_counter()
        estimates = fit()
        say(seconds=time.process_time() - start, clock=time.perf_counter() - clock)
    write(estimates, folder)
    say(memory_before=before, memory_peak=peak_memory())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
