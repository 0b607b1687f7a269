"""The exact maximum-likelihood fits that other packages gave, and the same by this one."""

import json
import os
import warnings
from pathlib import Path

import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning

from sc_glm import NegBinRegressor, ZINBRegressor

DATA = Path(__file__).parent / "data"
REFERENCE = os.environ.get("SC_GLM_REFERENCE")
REGRESSORS = {"NB": NegBinRegressor, "ZINB": ZINBRegressor}
# Of each part, under the names that the references have for them
SHORT = {"mean": "mean", "dispersion": "disp", "zero_inflation": "zi"}

HARD = sorted(path.stem for path in DATA.glob("hard_*.json"))
ORDINARY = [
    "nb_quine_add",
    "nb_quine_weighted",
    "nbdisp_owls_offset",
    "nbdisp_quine",
    "zinb_biochemists",
    "zinbdisp_salamanders",
]

needs_references = pytest.mark.skipif(
    REFERENCE is None, reason="SC_GLM_REFERENCE names no folder of exact fits"
)


def path_of(name):
    folder = DATA if name in HARD else Path(REFERENCE)
    return folder / f"{name}.json"


def design_frame(table):
    columns = {
        f"{part}__{name.removeprefix(short + ':')}": table[name]
        for part, short in SHORT.items()
        for name in table.columns
        if name.startswith(f"{short}:")
    }
    return pd.DataFrame(columns | {"offset__o": table["offset_mean"]})


def fit_reference(name, **options):
    """Return what is known of a fit, the model, and its data: X, y and the weights."""
    path = path_of(name)
    exact = json.loads(path.read_text())
    table = pd.read_csv(path.with_suffix(".csv"))
    data = design_frame(table), table["y"], table["weight"]
    model = REGRESSORS[exact["family"]](**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # separated, as the file says
        model.fit(*data[:2], sample_weight=data[2])
    return exact, model, data


def of_part(values, part):
    """Return a reference's values of a part, which has two names there."""
    return values.get(part) or values.get(SHORT[part]) or {}
