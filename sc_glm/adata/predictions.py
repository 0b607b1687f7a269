"""Expected counts and simulated counts of cells, as an AnnData."""

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from sc_glm._contract.docstrings import documented
from sc_glm.adata.docstring_entries import ENTRIES
from sc_glm.adata.models import regressor_and_design
from sc_glm.adata.reading import covariates_of


@documented(ENTRIES)
def predict(adata_or_obs: AnnData | pd.DataFrame, model: Any) -> AnnData:
    """Return expected counts, and the value of each part of the model, for cells.

    Parameters
    ----------
    {adata_or_obs}
    {fitted_model}

    Returns
    -------
    AnnData
        It has a copy of ``obs`` and the names of the model's genes. ``X`` is the expected counts
        E[y | x], and ``layers`` are the parts: ``mean`` (mu), ``dispersion`` (the size r: the
        variance is mu + mu²/r) and ``zero_inflation`` (pi).

    Warns
    -----
    {warns_not_estimable}

    Examples
    --------
    >>> import pandas as pd
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm import adata as scg
    >>> obs = pd.DataFrame({"x": [0.0, 1.0, 0.0, 1.0]}, index=list("abcd"))
    >>> model = NegBinRegressor().fit(obs, pd.DataFrame({"Ins1": [1, 4, 3, 8]}))
    >>> scg.predict(obs.head(2), model).to_df().round(3)
       Ins1
    a   2.0
    b   6.0
    """
    obs = covariates_of(adata_or_obs)
    regressor, design = regressor_and_design(model, obs)
    shape = (len(obs), len(regressor.target_names_))
    layers = {
        part: values.reshape(shape) for part, values in regressor.predict_params(design).items()
    }
    return _anndata(regressor.predict(design).reshape(shape), obs, regressor, layers)


@documented(ENTRIES)
def sample(
    adata_or_obs: AnnData | pd.DataFrame,
    model: Any,
    *,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
) -> AnnData:
    """Return simulated counts for cells.

    Parameters
    ----------
    {adata_or_obs}
    {fitted_model}
    {random_state}

    Returns
    -------
    AnnData
        It has a copy of ``obs`` and the names of the model's genes. ``X`` is the counts, a CSR
        matrix. They are drawn by blocks of cells, so that no dense matrix of all cells is made.

    Raises
    ------
    {raises_not_estimable}

    Examples
    --------
    >>> import pandas as pd
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm import adata as scg
    >>> obs = pd.DataFrame({"x": [0.0, 1.0, 0.0, 1.0]}, index=list("abcd"))
    >>> model = NegBinRegressor().fit(obs, pd.DataFrame({"Ins1": [1, 4, 3, 8]}))
    >>> scg.sample(obs, model, random_state=0).X.shape
    (4, 1)
    """
    obs = covariates_of(adata_or_obs)
    regressor, design = regressor_and_design(model, obs)
    counts = regressor.sample_sparse(design, random_state)
    return _anndata(sp.csr_matrix(counts), obs, regressor, {})


def _anndata(X: Any, obs: pd.DataFrame, regressor: Any, layers: dict[str, Any]) -> AnnData:
    obs = obs.set_axis(obs.index.astype(str)).copy()  # anndata would warn of other names of cells
    return AnnData(X, obs=obs, var=pd.DataFrame(index=regressor.target_names_), layers=layers)
