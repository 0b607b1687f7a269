"""What README and examples promise: their code runs, and their numbers are reached."""

import contextlib
import io
import json
import os
import re
import runpy
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy.sparse import csr_matrix

import sc_glm
from sc_glm.datasets import fetch_pbmc3k, make_counts

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SC_GLM_DATA", ""))
DEMO = ROOT / "examples" / "demo.py"


def blocks_of(path, pattern):
    return re.findall(pattern, path.read_text(), re.DOTALL)


def readmes_code():
    return blocks_of(ROOT / "README.md", r"```python\n(.*?)```")


def cells_with_donors():
    data = make_counts(600, 100, preset="donors", random_state=0)
    obs = data.obs.set_axis(data.obs.index.astype(str))
    obs["pseudotime"], obs["clusters"] = np.arange(600) * 7 % 601 / 600, obs["cell_type"]
    obs["total_counts"] = data.counts.sum(axis=1).to_numpy()
    counts = csr_matrix(data.counts)
    var = pd.DataFrame(index=data.counts.columns)
    return AnnData(counts, obs=obs, var=var, layers={"counts": counts})


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_readmes_code_runs():
    adata = cells_with_donors()
    names = {"adata": adata}
    first, *others = readmes_code()
    assert len(others) == 2
    exec(first, names)  # noqa: S102
    assert list(names["table"].index) == list(adata.var_names)
    assert names["table"]["p_value"].notna().any()
    for block in others:
        exec(block, names)  # noqa: S102
    assert set(names["by_clusters"].index) == set(names["by_sums"].index) == set(adata.var_names)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_short_code_of_the_page_on_real_data_runs(tmp_path, monkeypatch, pyplot):  # noqa: ARG001
    cells_with_donors().write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks_of(ROOT / "doc" / "real_data.rst", r"In short:\n\n.*?\n\n(.*?)\n\n(?=\S)")
    names = {}
    exec(textwrap.dedent(code), names)  # noqa: S102
    genes = set(names["adata"].var_names)
    assert all(set(names[name].index) == genes for name in ("table", "by_donors", "of_sums"))


def test_both_first_screens_have_the_same_code_and_numbers():
    pages = [ROOT / "README.md", ROOT / "doc" / "index.rst"]
    code, output = (
        blocks_of(pages[1], rf".. code-block:: {language}\n\n(.*?)\n\n(?=\S)")[0]
        for language in ("python", "none")
    )
    assert textwrap.dedent(code) == readmes_code()[0].rstrip()
    assert f"```\n{textwrap.dedent(output)}\n```" in pages[0].read_text()
    numbers = [re.findall(r"-7,197,\d+.\d+|[\d.]+ s |\d+ %", page.read_text()) for page in pages]
    assert numbers[0][: len(numbers[1])] == numbers[1]


@pytest.mark.data
@pytest.mark.skipif(
    not (DATA / "pbmc3k_raw.h5ad").is_file(), reason="SC_GLM_DATA has no pbmc3k_raw.h5ad"
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_first_table_is_of_real_cells():
    cells = fetch_pbmc3k()
    cells = cells[:, cells.X.getnnz(axis=0) >= 10].copy()
    cells.layers["counts"] = cells.X
    assert cells.n_vars == 11_139
    names = {"adata": cells}
    exec(readmes_code()[0], names)  # noqa: S102
    (printed,) = blocks_of(ROOT / "README.md", r"```\n( +fraction .*?)\n```")
    header, _, *rows = (line.split() for line in printed.splitlines())
    for gene, *values in rows:
        *numbers, test = names["table"].loc[gene, header]
        assert [f"{number:.2f}" for number in numbers] == values[:4]
        assert test == values[4]


def test_the_line_of_numbers_is_that_of_the_benchmark():
    result = json.loads((ROOT / "doc/benchmarks/results/pbmc3k_offset.json").read_text())
    (line,) = blocks_of(ROOT / "README.md", r"\n(The fit of 2638 .*?) \(")
    line = " ".join(line.split())
    for fit, seconds in zip(result["fits"], ("takes 1.7 s", "glmGamPoi takes 21 s"), strict=True):
        assert seconds in line
        assert float(re.search("[\\d.]+", seconds)[0]) == float(f"{fit['median_seconds']:.2g}")
        assert f"{fit['log_likelihood']:,.2f}" in line
    assert "{} blood cells and {:,} genes".format(*result["shape"]) in line


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
