"""What README and examples promise: their code runs, and their numbers are reached."""

import contextlib
import io
import os
import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy.sparse import csr_matrix

import sc_glm
from sc_glm.datasets import make_counts

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SC_GLM_DATA", ""))
DEMO = ROOT / "examples" / "demo.py"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_readmes_code_runs():
    data = make_counts(200, 2, random_state=0)
    obs = data.obs.rename(columns={"cell_type": "clusters"}).assign(donor=np.arange(200) % 8)
    adata = AnnData(csr_matrix(data.counts), obs=obs, layers={"counts": csr_matrix(data.counts)})
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    names = {"adata": adata}
    for block in blocks:
        exec(block, names)  # noqa: S102
    assert set(names["model"].params_) == {"mean", "dispersion", "zero_inflation"}


def test_the_readmes_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert "examples/demo.py" in links
    folders = ROOT, Path(sc_glm.__file__).parents[1]  # where the package is installed
    broken = [link for link in links if not any((folder / link).exists() for folder in folders)]
    assert broken == []


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run the demo where there are no real data; return its folder and what it printed."""
    output, printed = tmp_path_factory.mktemp("demo"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("sys.argv", ["demo.py", "--output", str(output)])
        patch.delenv("SC_GLM_DATA", raising=False)
        runpy.run_path(str(DEMO), run_name="__main__")
    return output, printed.getvalue()


def log_likelihood(output, *row):
    table = pd.read_csv(output / "log_likelihoods.csv", index_col=["counts", "model"])
    return table.loc[row, "log_likelihood"]


def errors(path):
    table = pd.read_csv(path)
    assert table.groupby("part").size().eq(40).all()  # two coefficients of 20 genes
    return (table["estimate"] - table["truth"]).abs().groupby(table["part"]).mean()


def test_simulated_negative_binomial_counts(demo):
    output, _ = demo
    total = log_likelihood(output, "simulated, 1000 x 20", "NB")
    assert total == pytest.approx(-29988.86, abs=0.01)
    error = errors(output / "simulated_nb.csv")
    assert error["mean"] <= 0.0323
    assert error["dispersion"] <= 0.0789


def test_simulated_zero_inflated_counts(demo):
    output, _ = demo
    total = log_likelihood(output, "simulated, 50000 x 20", "ZINB")
    assert total == pytest.approx(-947597.5, abs=0.05)
    error = errors(output / "simulated_zinb.csv")
    assert error["mean"] <= 0.0067
    assert error["dispersion"] <= 0.0177
    assert error["zero_inflation"] <= 0.0159


def test_the_demo_prints_log_likelihoods_and_writes_files_without_real_data(demo):
    output, printed = demo
    assert "simulated cells take their place" in printed
    assert "-29988.86" in printed
    assert "-947597.54" in printed
    simulated = read_h5ad(output / "simulated.h5ad")
    assert simulated.shape == (2087, 100)
    assert simulated.X.sum() > 0
    pictures = [path.name for path in output.glob("*.png")]
    assert "overview.png" in pictures
    assert {name[: len("plot_01")] for name in pictures} >= {"plot_01", "plot_02", "plot_03"}


@pytest.mark.data
@pytest.mark.skipif(
    not (DATA / "pancreas_100.h5ad").is_file(), reason="SC_GLM_DATA has no pancreas_100.h5ad"
)
def test_pancreas_fits_reach_the_best_known(tmp_path):
    cells = runpy.run_path(str(DEMO))["run_real_cells"]("plot_02_real_cells", tmp_path)
    assert cells["likelihoods"].round(2)["log-likelihood"].to_dict() == pytest.approx(
        {
            "NB, dispersion ~ 1": -425384.94,
            "NB, dispersion ~ pseudotime": -415980.64,
            "NB, dispersion ~ .": -408968.82,
            "ZINB, all ~ pseudotime": -411720.31,
            "NB, mean ~ bs(pseudotime, df=5)": -386636.79,
        },
        abs=0.011,
    )
