"""What works without any extra: everything but what needs one, and that says which."""

import os
import pickle
import pkgutil
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import anndata
import numpy as np

import sc_glm as sg

present = [name for name in ("matplotlib", "dask", "distributed", "pooch") if find_spec(name)]
assert not present, f"{present} should not be installed here"

for module in pkgutil.walk_packages(sg.__path__, "sc_glm."):
    import_module(module.name)
for name in sg.__all__:
    assert getattr(sg, name).__doc__, name

data = sg.datasets.make_counts(80, 3, zero_inflation="~ 1", random_state=0)
model = sg.make_pipeline(sg.FormulaTransformer("~ pseudotime"), sg.NegBinRegressor())
again = pickle.loads(pickle.dumps(model.fit(data.obs, data.counts)))  # noqa: S301 - our own
np.testing.assert_array_equal(again.predict(data.obs), model.predict(data.obs))

adata = anndata.AnnData(data.counts, obs=data.obs.set_axis(data.obs.index.astype(str)))
sg.adata.fit(adata, model)
with tempfile.TemporaryDirectory() as folder:
    adata.write_h5ad(Path(folder) / "fitted.h5ad")
    back = anndata.read_h5ad(Path(folder) / "fitted.h5ad")
fitted = sg.adata.read_params(back)["mean"]
np.testing.assert_array_equal(fitted, sg.adata.read_params(adata)["mean"])


def refusal(use: Callable[[], object]) -> str:
    """Return the message where an extra is needed."""
    try:
        use()
    except ImportError as error:
        return str(error)
    return ""


message = refusal(lambda: sg.plots.RootogramDisplay.from_estimator(model, data.obs, data.counts))
assert "sc_glm[plots]" in message, message
os.environ.pop("SC_GLM_DATA", None)
message = refusal(sg.datasets.fetch_pancreas)
assert "sc_glm[datasets]" in message, message
