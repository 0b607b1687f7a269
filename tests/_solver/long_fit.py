"""A process whose fit waits to be interrupted: ``python long_fit.py FOLDER N_JOBS``.

It fits the data in FOLDER once for each line on its standard input, and says how the fit ended.
Genes that have the largest count wait for ever. A process that waits writes a file ``waiting-PID``.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from sc_glm import NegBinRegressor
from sc_glm._likelihood import family


class NegBinFamily(family.NegBinFamily):
    """In name the original."""

    def tile(self, predictors, counts, zeros=None):
        if (counts == y.max()).any():
            (folder / f"waiting-{os.getpid()}").touch()
            while True:
                time.sleep(0.02)
        return super().tile(predictors, counts, zeros)


class Regressor(NegBinRegressor):
    _family = NegBinFamily()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which background jobs ignore
    folder = Path(sys.argv[1])
    X, y = np.load(folder / "data.npz").values()
    model = Regressor(batch_size=2, n_jobs=int(sys.argv[2]), checkpoint_dir=folder / "checkpoint")
    for _ in sys.stdin:
        try:
            model.fit(X, y)
        except (KeyboardInterrupt, RuntimeError) as error:
            print(repr(error), type(error.__cause__), sorted(vars(model)), flush=True)
