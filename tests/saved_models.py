"""Models that were saved and opened again, and cells to fit them to."""

import pickle

import numpy as np
import pandas as pd
import skops.io

CELLS = pd.DataFrame(
    {
        "x": [0.1, 0.5, 0.2, 0.9, 0.7, 0.3, 0.8, 0.6],
        "n": [0, 1, 2, 3, 0, 1, 2, 3],
        "kind": list("abbaabcc"),
        "stage": pd.Categorical(list("uvuvwwuv"), ["w", "v", "u"], ordered=True),
        "cut": pd.cut([1, 2, 3, 4, 1, 2, 3, 4], [0, 2, 4]),
        "flag": [True, False] * 4,
        "b b": np.arange(8.0),
    }
)


def through_pickle(model):
    """Return a model from its pickle."""
    return pickle.loads(pickle.dumps(model))  # noqa: S301


def through_skops(model):
    """Return a model that skops wrote and read, with trust in its own types only."""
    written = skops.io.dumps(model)
    untrusted = skops.io.get_untrusted_types(data=written)
    assert {name for name in untrusted if not name.startswith("sc_glm.")} <= {
        "pandas.Interval",  # of pandas 3
        "pandas._libs.interval.Interval",
    }
    return skops.io.loads(written, trusted=untrusted)
