"""Compare the presets of make_counts with the real screens that they are taken from.

Run as ``python doc/presets.py > doc/presets.txt``, with ``SC_GLM_DATA`` naming the folder of the
real data. Each line has quantiles over genes, or over cells for their totals.
"""

import os
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning

from sc_glm import FormulaTransformer, NegBinRegressor
from sc_glm.datasets import fetch_pancreas, fetch_pbmc3k, make_counts

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def summaries(counts, obs, formulas):
    """Return quantiles of what describes a screen, one row each."""
    counts = counts.astype(float)
    seen = counts.any(axis=0)
    # One count of tens in a cell, as real screens have them, is as much as all the others do.
    others = counts[:, seen].copy()
    others[others.argmax(axis=0), np.arange(seen.sum())] = np.nan
    expressed = counts[:, (counts > 0).sum(axis=0) >= 50]
    X = FormulaTransformer(**formulas).fit_transform(obs)
    model = NegBinRegressor().fit(X, expressed)
    size = np.median(model.predict_dist(X).r, axis=0)
    rows = {
        "mean": counts.mean(axis=0),
        "share of zeros": (counts == 0).mean(axis=0),
        "variance / mean": counts[:, seen].var(axis=0) / counts[:, seen].mean(axis=0),
        "without largest": np.nanvar(others, axis=0) / np.nanmean(others, axis=0).clip(1e-12),
        "overdispersion": 1.0 / size,
        "total of a cell": counts.sum(axis=1),
    }
    return pd.DataFrame({name: np.quantile(x, LEVELS) for name, x in rows.items()}, index=LEVELS).T


def pancreas():
    adata = fetch_pancreas()
    adata.obs["size_factor"] = adata.obs["sizeFactor"]
    return adata


def perturbation():
    adata = anndata.read_h5ad(Path(os.environ["SC_GLM_DATA"]) / "schraivogel_tapseq_22k.h5ad")
    adata = adata[::4].copy()
    adata.obs["size_factor"] = adata.obs["panel_counts"] / adata.obs["panel_counts"].median()
    return adata


def pbmc():
    adata = fetch_pbmc3k()
    adata = adata[:, np.random.default_rng(0).permutation(adata.n_vars)[:3000]].copy()
    adata.obs["size_factor"] = adata.obs["total_counts"] / adata.obs["total_counts"].median()
    return adata


def expressed_pbmc():
    adata = fetch_pbmc3k()
    adata = adata[:, np.asarray(adata.X.mean(axis=0)).ravel() >= 0.05]
    adata = adata[:, np.random.default_rng(0).permutation(adata.n_vars)[:500]].copy()
    adata.obs["size_factor"] = adata.obs["total_counts"] / adata.obs["total_counts"].median()
    return adata


SCREENS = {
    "pbmc": pbmc,
    "pancreas": pancreas,
    "perturbation": perturbation,
    "donors": expressed_pbmc,
}

# Cell types alone, where both have them: labels of real cells are not in every copy of pbmc3k.
FORMULAS = {
    "pbmc": {"mean": "~ 1", "offset": "np.log(size_factor)"},
    "pancreas": {
        "mean": "~ bs(pseudotime, df=5)",
        "dispersion": "~ pseudotime",
        "offset": "np.log(size_factor)",
    },
    "perturbation": {"mean": "~ lane", "offset": "np.log(size_factor)"},
    "donors": {"mean": "~ 1", "offset": "np.log(size_factor)"},
}


def main():
    # Genes of one end of pseudotime have means that go to zero at the other.
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    for preset, real in SCREENS.items():
        adata = real()
        adata.obs["lane"] = adata.obs.get("lane", pd.Series("", index=adata.obs_names)).astype(str)
        data = make_counts(*adata.shape, preset=preset, random_state=0)
        obs = data.obs
        if preset == "perturbation":  # the real depth is the panel's total, too
            total = data.counts.sum(axis=1)
            obs = obs.assign(size_factor=total / total.median())
        tables = {
            "real": summaries(adata.X.toarray(), adata.obs, FORMULAS[preset]),
            "preset": summaries(data.counts.to_numpy(), obs, FORMULAS[preset]),
        }
        both = pd.concat(tables).swaplevel().reindex(tables["real"].index, level=0)
        both.columns = [f"{100 * level:.0f} %" for level in LEVELS]
        print(f"{preset}: {adata.n_obs} cells x {adata.n_vars} genes")
        print(both.to_string(float_format=lambda x: f"{x:.3g}"), end="\n\n")


if __name__ == "__main__":
    main()
