"""Count the genes of the pancreas set that prefer each of four models.

``python doc/benchmarks/model_choice.py`` compares them on 100 genes by the likelihood of held-out
cells, in five folds, and prints how many genes have each as their best model, and as the simplest
within one standard error of it. The environment variable ``SC_GLM_DATA`` names the folder of
``pancreas_100.h5ad``. It takes some ten seconds.
"""

import os
from pathlib import Path

import anndata
from sklearn.model_selection import KFold

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.selection import choose_model, compare_models

SPLINE = "~ bs(pseudotime, df=5)"
MODELS = {
    "NB `~ 1`": ("~ 1", NegBinRegressor()),
    "NB `~ pseudotime`": ("~ pseudotime", NegBinRegressor()),
    f"NB `{SPLINE}`": (SPLINE, NegBinRegressor()),
    f"ZINB `{SPLINE}`": (SPLINE, ZINBRegressor()),
}


def main():
    """Print one table."""
    adata = anndata.read_h5ad(Path(os.environ["SC_GLM_DATA"]) / "pancreas_100.h5ad")
    models = {
        name: AnnDataRegressor(make_pipeline(FormulaTransformer(mean), regressor), layer="counts")
        for name, (mean, regressor) in MODELS.items()
    }
    # Mixed, as cells may be stored in the order of their type.
    table = compare_models(models, adata, cv=KFold(5, shuffle=True, random_state=0))
    best = table.loc[table["shortfall"] == 0, "model"].value_counts(sort=False)
    chosen = choose_model(table).value_counts(sort=False)
    gain = table.groupby("model", observed=True)["difference"].sum() * adata.n_obs
    failed = table.groupby("model", observed=True)["n_failed"].sum()
    print("| model | best | simplest within one standard error | gain | failed fits |")
    print("|---|---|---|---|---|")
    for name in models:
        print(f"| {name} | {best[name]} | {chosen[name]} | {gain[name]:.0f} | {failed[name]} |")


if __name__ == "__main__":
    main()
