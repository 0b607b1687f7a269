"""What README and examples promise: their code runs, and their numbers are reached."""

import os
import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy.sparse import csr_matrix

import sc_glm.adata
from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.datasets import make_counts

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SC_GLM_DATA", ""))


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(ROOT / "examples" / "seed_notebook.py"))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_readmes_code_runs():
    data = make_counts(200, 5, random_state=0)
    obs = data.obs.rename(columns={"cell_type": "clusters"}).assign(donor=np.arange(200) % 8)
    adata = AnnData(csr_matrix(data.counts), obs=obs, layers={"counts": csr_matrix(data.counts)})
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    names = {"adata": adata}
    for block in blocks:
        exec(block, names)  # noqa: S102
    assert set(names["model"].params_) == {"mean", "dispersion", "zero_inflation"}


def fit_simulation(example, regressor, n_cells, *, zero_inflated):
    obs, counts, formulas, truth = example["simulate"](n_cells, zero_inflated=zero_inflated)
    model = make_pipeline(FormulaTransformer(**formulas), regressor).fit(obs, counts)
    errors = {p: np.abs(t.to_numpy() - truth[p]).mean() for p, t in model.params_.items()}
    return regressor.log_likelihood_.sum(), errors


def test_simulated_negative_binomial_counts(example):
    total, errors = fit_simulation(example, NegBinRegressor(), 1000, zero_inflated=False)
    assert total == pytest.approx(-29988.86, abs=0.01)
    assert errors["mean"] <= 0.0323
    assert errors["dispersion"] <= 0.0789


def test_simulated_zero_inflated_counts(example):
    total, errors = fit_simulation(example, ZINBRegressor(), 50_000, zero_inflated=True)
    assert total == pytest.approx(-947597.5, abs=0.05)
    assert errors["mean"] <= 0.0067
    assert errors["dispersion"] <= 0.0177
    assert errors["zero_inflation"] <= 0.0159


@pytest.mark.data
@pytest.mark.skipif(
    not (DATA / "pancreas_100.h5ad").is_file(), reason="SC_GLM_DATA has no pancreas_100.h5ad"
)
@pytest.mark.parametrize(
    ("regressor", "formulas", "at_least"),
    [
        (NegBinRegressor, {}, -425384.95),
        (NegBinRegressor, {"dispersion": "~ pseudotime"}, -415980.65),
        (NegBinRegressor, {"dispersion": "~ . - total_counts"}, -408968.82),
        (
            ZINBRegressor,
            {"dispersion": "~ pseudotime", "zero_inflation": "~ pseudotime"},
            -411725.04,
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pancreas_fits_reach_the_best_known(regressor, formulas, at_least):
    adata = read_h5ad(DATA / "pancreas_100.h5ad")
    model = make_pipeline(FormulaTransformer("~ pseudotime", **formulas), regressor())
    sc_glm.adata.fit(adata, model, layer="counts")
    assert adata.var["sc_glm_log_likelihood"].sum() >= at_least


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_main_job_writes_its_files(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["seed_notebook.py", "--output", str(tmp_path)])
    monkeypatch.delenv("SC_GLM_DATA", raising=False)
    example["main"]()
    assert "simulated counts in its place" in capsys.readouterr().out
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"simulated_nb.csv", "simulated_zinb.csv", "simulated.h5ad", "overview.png"}
    assert {"truth", "estimate"} <= set(pd.read_csv(tmp_path / "simulated_nb.csv"))
