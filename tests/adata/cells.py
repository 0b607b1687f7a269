"""What the tests of AnnData share: formulas, names of genes, storage of counts, comparisons."""

import numpy as np
import scipy.sparse as sp
from pandas.testing import assert_frame_equal

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline

# Names that files take for paths, that formulas bracket, that are not ASCII.
FORMULAS = {"mean": "~ bs(pseudotime, df=3) + cell_type"}


LEVELS = {"a": "Ngn3 high EP", "b": "a/b β", "c": "c"}


GENES = ["Ins1", "H2-K1", "a/b", "β2m"]


ZARR_FORMAT = "ignore:Writing zarr v2 data:UserWarning"  # anndata 0.12, whenever it writes


def pipeline(mean=FORMULAS["mean"], regressor=None, **formulas):
    return make_pipeline(FormulaTransformer(mean, **formulas), regressor or NegBinRegressor())


def assert_params(params, expected):
    assert list(params) == list(expected)
    for part, table in expected.items():
        assert_frame_equal(params[part], table, check_exact=True)


def assert_unchanged(adata, before, key=None):
    """Compare all but what `key` names."""
    frames = [(adata.obs, before.obs), (adata.var, before.var)]
    own = [column for column in adata.var if key and column.startswith(f"{key}_")]
    for frame, earlier in frames:
        assert_frame_equal(frame.drop(columns=own, errors="ignore"), earlier, check_exact=True)
    assert list(adata.layers) == list(before.layers)
    for layer in (None, *before.layers):
        now, then = (a.X if layer is None else a.layers[layer] for a in (adata, before))
        assert type(now) is type(then)
        assert now.dtype == then.dtype
        assert abs(now - then).sum() == 0
    assert {name for name in adata.uns if name != key} == set(before.uns)
    assert {name for name in adata.varm if not (key and name.startswith(key))} == set(before.varm)
    assert list(adata.obsm) == list(before.obsm)


STORAGE = {
    "dense": lambda counts: counts.toarray(),
    "fortran": lambda counts: np.asfortranarray(counts.toarray().astype(np.float32)),
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
}
