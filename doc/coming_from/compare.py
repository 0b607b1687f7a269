"""Fit the same simulated counts with sc_glm and with other packages, side by side.

``python doc/coming_from/compare.py [PACKAGE ...]`` writes a table ``PACKAGE.txt`` for each, which
``doc/coming_from.rst`` includes: the coefficients of one gene, and how far those of all genes and
their log-likelihoods are apart. Without names, all packages that are installed are compared; those
in R are called through ``Rscript`` (see ``compare.R``). It takes two minutes.

Each fit stands between two marks, from which the page takes its code. Genes whose likelihood has
its maximum at infinity are left out: there, packages differ in where they stop.
"""

import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, inference, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.moderation import moderate_dispersion

HERE = Path(__file__).parent
LOG_LIKELIHOOD = "log-likelihood"
ALIKE = 0.001  # log-likelihoods of the same maximum


class MissingPackageError(Exception):
    """A package is not installed."""


class Fits(NamedTuple):
    """What a package makes of the genes.

    Attributes
    ----------
    title : str
        Its name and version.
    table : DataFrame
        Coefficients, spelled ``part__column``, and the log-likelihood; a column for each gene.
    """

    title: str
    table: pd.DataFrame


def simulate(n_targets=10, n_samples=1000, **formulas):
    """Draw cells whose mean depends on pseudotime and cell type, and the model of them."""
    return make_counts(
        n_samples, n_targets, mean="~ pseudotime + cell_type", **formulas, random_state=0
    )


def fit_sc_glm(data):
    """Fit the formulas that the counts were drawn by, and keep the genes of a finite maximum."""
    regressor = ZINBRegressor() if data.formulas["zero_inflation"] else NegBinRegressor()
    model = make_pipeline(FormulaTransformer(**data.formulas), regressor)
    model.fit(data.obs, data.counts)
    table = pd.concat(model.params_)
    table.index = [f"{part}__{column}" for part, column in table.index]
    table.loc[LOG_LIKELIHOOD] = regressor.log_likelihood_
    return Fits("sc_glm", table.loc[:, regressor.status_ == "converged"])


def with_version(package):
    """Return a package's name with its version."""
    return f"{package} {version(package)}"


# Packages: from simulated data, and the names of the rows, to fits


def from_r(package):
    """Return what asks R for a package's fits."""

    def fits(data, names):
        with tempfile.TemporaryDirectory() as folder:
            cells, table = Path(folder, "cells.csv"), Path(folder, "table.csv")
            pd.concat([data.obs, data.counts], axis=1).to_csv(cells, index=False)
            program = ["Rscript", str(HERE / "compare.R"), package, str(cells), str(table)]
            try:
                done = subprocess.run(program, capture_output=True, text=True, check=False)  # noqa: S603 - our own code
            except FileNotFoundError as error:
                raise MissingPackageError from error
            if done.returncode == 3:
                raise MissingPackageError
            if done.returncode:
                raise RuntimeError(done.stderr)
            values = pd.read_csv(table, header=None).set_axis(names)
        return [Fits(f"{package} {done.stdout}", values.set_axis(data.counts.columns, axis=1))]

    return fits


def statsmodels(data, names):
    """Fit a negative binomial to each gene."""
    import statsmodels.formula.api as smf  # noqa: PLC0415

    def fit_gene(gene):
        cells = data.obs.assign(gene=gene)
        # begin statsmodels
        fit = smf.negativebinomial(
            "gene ~ pseudotime + cell_type", cells, offset=np.log(cells["size_factor"])
        ).fit(disp=0)
        mean = fit.params.drop("alpha")
        dispersion = -np.log(fit.params["alpha"])
        fitted = fit.llf
        # end statsmodels
        # It puts columns of factors before those of numbers.
        return pd.Series([*mean.add_prefix("mean__")[names[:-2]], dispersion, fitted], names)

    return [Fits(with_version("statsmodels"), data.counts.apply(fit_gene))]


def statsmodels_zinb(data, names):
    """Fit a zero-inflated negative binomial to each gene."""
    import statsmodels.api as sm  # noqa: PLC0415

    obs = data.obs

    def fit_gene(gene):
        # begin statsmodels_zinb
        X = FormulaTransformer("~ pseudotime + cell_type").fit_transform(obs)
        Z = FormulaTransformer("~ pseudotime").fit_transform(obs)
        fit = sm.ZeroInflatedNegativeBinomialP(
            gene, X, exog_infl=Z, offset=np.log(obs["size_factor"])
        ).fit(disp=0, maxiter=1000)
        zero_inflation, mean = fit.params[: Z.shape[1]], fit.params[Z.shape[1] : -1]
        dispersion = -np.log(fit.params["alpha"])
        fitted = fit.llf
        # end statsmodels_zinb
        return pd.Series([*mean, dispersion, *zero_inflation, fitted], names)

    return [Fits(with_version("statsmodels"), data.counts.apply(fit_gene))]


def scdesigner(data, names):
    """Fit scDesigner with its defaults, and for long, to all cells and without decay of weights."""
    import torch  # noqa: PLC0415
    from anndata import AnnData  # noqa: PLC0415
    from scdesigner.distributions import NegBin  # noqa: PLC0415

    adata = AnnData(data.counts.astype("float32"), obs=data.obs)

    def fit(title, **options):
        torch.manual_seed(0)
        # begin scdesigner
        # The counts are in adata.X, covariates in adata.obs. There are no options by default.
        model = NegBin({"mean": "~ pseudotime + cell_type", "dispersion": "~ cell_type"})
        model.setup_data(adata)
        model.fit(verbose=False, **options)
        coefficients = model.parameters["mean"], model.parameters["dispersion"]
        # end scdesigner
        values = pd.concat(coefficients).astype(float).set_axis(names[:-1])
        values.loc[LOG_LIKELIHOOD] = log_likelihood(data, values)
        return Fits(title, values.set_axis(data.counts.columns, axis=1))

    return [
        fit(with_version("scdesigner")),
        fit("2000 epochs", max_epochs=2000, val_frac=0.0, weight_decay=0.0),
    ]


def log_likelihood(data, coefficients):
    """Compute by SciPy the log-likelihood of genes of a negative binomial without an offset."""
    design = FormulaTransformer(**data.formulas).fit_transform(data.obs)
    mean, dispersion = (
        design.filter(regex=f"^{part}__").to_numpy()
        @ coefficients.filter(regex=f"^{part}__", axis=0)
        for part in ("mean", "dispersion")
    )
    mu, r = np.exp(mean).to_numpy(), np.exp(dispersion).to_numpy()
    return stats.nbinom.logpmf(data.counts, r, r / (r + mu)).sum(axis=0)


def pydeseq2(data):
    """Return log2 fold changes of PyDESeq2's pipeline, and those of a moderated model."""
    from pydeseq2.dds import DeseqDataSet  # noqa: PLC0415
    from pydeseq2.ds import DeseqStats  # noqa: PLC0415

    counts = data.counts

    def fit(min_mu):
        obs = data.obs
        # begin pydeseq2
        dds = DeseqDataSet(
            counts=counts,  # cells x genes
            metadata=obs,
            design="~ pseudotime + cell_type",
            size_factors_fit_type="poscounts",  # as no gene is seen in all cells
            min_mu=min_mu,  # 0.5 by default
            quiet=True,
        )
        dds.deseq2()
        results = DeseqStats(dds, contrast=["cell_type", "b", "a"], quiet=True)
        results.summary()
        table = results.results_df
        # end pydeseq2
        return dds, table["log2FoldChange"], dds.var["dispersions"]

    dds, *defaults = fit(min_mu=0.5)
    _, *low_means = fit(min_mu=1e-6)
    obs = data.obs
    # begin pydeseq2_sc_glm
    obs = obs.assign(size_factor=dds.obs["size_factors"])  # or your own
    model = make_pipeline(
        FormulaTransformer("~ pseudotime + cell_type", offset="np.log(size_factor)"),
        NegBinRegressor(),
    ).fit(obs, counts)
    moderated = moderate_dispersion(model, obs, counts)
    table = inference.wald_test(moderated.model, obs, counts, "cell_type[T.b]")
    # end pydeseq2_sc_glm
    ours = table["log2_fold_change"], moderated.table["moderated"]
    titles = "sc_glm, moderated", with_version("pydeseq2"), "the same, ``min_mu=1e-6``"
    return {
        name: pd.concat(columns, axis=1, keys=titles)[table["reason"] == ""]
        for name, *columns in zip(
            ("log2 fold change", "1 / r"), ours, defaults, low_means, strict=True
        )
    }


# Tables


def list_table(header, rows):
    """Write cells as a list-table."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for first, *others in (header, *rows):
        lines += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
    return "\n".join(lines) + "\n"


def table_of_fits(ours, theirs):
    """Show one gene, and how far all are apart."""
    gene = ours.table.columns[0]
    header = [gene, ours.title, *(fit.title for fit in theirs)]
    rows = [
        [name, *(f"{fit.table.loc[name, gene]:.4f}" for fit in (ours, *theirs))]
        for name in ours.table.index
    ]
    return "\n".join([list_table(header, rows), *(distances(ours, fit) for fit in theirs)])


def distances(ours, theirs):
    """Say in words how far the genes of a fit are from sc_glm's."""
    apart = theirs.table[ours.table.columns] - ours.table
    values, coefficients = apart.loc[LOG_LIKELIHOOD], apart.drop(LOG_LIKELIHOOD).abs().max()
    alike = values.abs() < ALIKE
    n_alike, n_below = int(alike.sum()), int((values <= -ALIKE).sum())
    clauses = []
    if n_alike:
        clauses.append(
            f"the log-likelihoods of {n_alike} of {len(alike)} genes are the same to within "
            f"{ALIKE:g}, with coefficients that differ by at most {coefficients[alike].max():.1g}"
        )
    if n_below:
        clauses.append(
            f"{n_below} of {len(alike)} end below sc_glm's, by up to {-values.min():.2g}"
        )
    if n_alike + n_below < len(alike):
        clauses.append(f"some end above sc_glm's, by up to {values.max():.2g}")
    return f"{theirs.title}: {'; '.join(clauses)}.\n"


def table_of_pipelines(tables, shown=6):
    """Show some genes, and how far all are apart."""
    text = ""
    for name, table in tables.items():
        rows = [[gene, *(f"{x:.3f}" for x in row)] for gene, row in table.head(shown).iterrows()]
        text += list_table([name, *table.columns], rows) + "\n"
        ours, *theirs = (table[title] for title in table)
        apart = [(other - ours).abs() for other in theirs]
        text += (
            f"Of {len(table)} genes, half are less than "
            + " and ".join(f"{x.median():.2g}" for x in apart)
            + " from sc_glm's, nine in ten less than "
            + " and ".join(f"{x.quantile(0.9):.2g}" for x in apart)
            + ".\n\n"
        )
    return text


def main(asked):
    """Write the tables that are asked for."""
    warnings.simplefilter("ignore")  # of genes without a finite maximum: they are left out
    offset = {"offset": "np.log(size_factor)"}
    one_size = simulate(**offset)
    inflated = simulate(n_samples=3000, zero_inflation="~ pseudotime", **offset)
    comparisons = {
        "MASS": (from_r("MASS"), one_size),
        "glmGamPoi": (from_r("glmGamPoi"), one_size),
        "glmmTMB": (from_r("glmmTMB"), simulate(dispersion="~ cell_type", **offset)),
        "pscl": (from_r("pscl"), inflated),
        "statsmodels": (statsmodels, one_size),
        "statsmodels_zinb": (statsmodels_zinb, inflated),
        "scdesigner": (scdesigner, simulate(dispersion="~ cell_type")),
    }
    for name in asked or [*comparisons, "pydeseq2"]:
        try:
            if name == "pydeseq2":
                text = table_of_pipelines(pydeseq2(simulate(n_targets=200, n_samples=300)))
            else:
                fit, data = comparisons[name]
                ours = fit_sc_glm(data)
                text = table_of_fits(ours, fit(data, list(ours.table.index)))
        except (ImportError, MissingPackageError):
            print(f"{name} is not installed")
            continue
        (HERE / f"{name}.txt").write_text(text.rstrip() + "\n")
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
