"""Packages in Python: each function prepares a case as its package wants it and returns the fit.

What is returned is timed, so it holds the fit alone: the import, the conversion of the counts and
the set-up of the design are outside.
"""

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp


class Estimates(NamedTuple):
    """Coefficients by part (columns x genes), and which genes the tool takes for converged."""

    coefficients: dict[str, np.ndarray]
    converged: np.ndarray | None = None
    n_iter: np.ndarray | None = None


class Tool(NamedTuple):
    """How a tool's fit is prepared, and the distribution that has its version number."""

    prepare: Callable
    package: str


def dense(counts):
    """Return the counts as an array, which most packages want."""
    return counts.toarray() if sp.issparse(counts) else counts


def fit_sc_glm(case):
    """Return the default fit; counts stay as they are, dense or sparse."""
    from sc_glm import NegBinRegressor, ZINBRegressor  # noqa: PLC0415

    X = pd.DataFrame(
        {f"{part}__{i}": x for part, design in case.designs.items() for i, x in enumerate(design.T)}
    )
    if case.offset is not None:
        X["offset__0"] = case.offset
    estimator = ZINBRegressor if "zero_inflation" in case.designs else NegBinRegressor

    def fit():
        model = estimator().fit(X, case.counts)
        coefficients = {part: coef.to_numpy() for part, coef in model.params_.items()}
        return Estimates(coefficients, model.converged_, model.n_iter_)

    return fit


def fit_statsmodels(case):
    """Return the fit of a model for each gene, with more iterations where the default is 35."""
    import statsmodels.api as sm  # noqa: PLC0415

    X, Z = case.designs["mean"], case.designs.get("zero_inflation")
    n_inflation = 0 if Z is None else Z.shape[1]

    def fit_gene(y):
        if Z is None:
            return sm.NegativeBinomial(y, X).fit(disp=0)
        model = sm.ZeroInflatedNegativeBinomialP(y, X, exog_infl=Z)
        return model.fit(disp=0, maxiter=1000)

    def fit():
        fits = [fit_gene(y) for y in case.counts.T]
        inflation, mean, overdispersion = np.split(
            np.array([f.params for f in fits]).T, [n_inflation, n_inflation + X.shape[1]]
        )
        coefficients = {"mean": mean, "dispersion": -np.log(overdispersion)}
        if n_inflation:
            coefficients["zero_inflation"] = inflation
        return Estimates(coefficients, np.array([f.mle_retvals["converged"] for f in fits]))

    return fit


def fit_pydeseq2(case):
    """Return the gene-wise fit: no size factors, no shrinkage, no Cox-Reid adjustment."""
    from pydeseq2.dds import DeseqDataSet  # noqa: PLC0415
    from pydeseq2.default_inference import DefaultInference  # noqa: PLC0415

    class MaximumLikelihood(DefaultInference):
        def alpha_mle(self, *args, **kwargs):
            return super().alpha_mle(*args, **kwargs, cr_reg=False)

    names = [f"cell{i}" for i in range(len(case.counts))]
    design = pd.DataFrame(case.designs["mean"], index=names).add_prefix("x")

    def fit():
        data = DeseqDataSet(
            counts=pd.DataFrame(case.counts, index=names).add_prefix("gene"),
            metadata=design,
            design=design,
            inference=MaximumLikelihood(n_cpus=1),
            min_mu=1e-6,  # the default is meant for bulk counts
            quiet=True,
        )
        data.obs["size_factors"] = 1.0
        data.layers["normed_counts"] = data.X.astype(float)
        data.fit_genewise_dispersions()
        data.var["dispersions"] = data.var["genewise_dispersions"]
        data.fit_LFC()
        size = -np.log(data.var["dispersions"].to_numpy(dtype=float))[None]
        converged = data.var["_LFC_converged"] & data.var["_genewise_converged"]
        coefficients = {"mean": data.varm["LFC"].to_numpy().T, "dispersion": size}
        return Estimates(coefficients, converged.to_numpy(dtype=bool, na_value=False))

    return fit


def fit_scdesigner(case, **options):
    """Return the fit of a marginal model by gradient descent."""
    import torch  # noqa: PLC0415
    from anndata import AnnData  # noqa: PLC0415
    from scdesigner.distributions import NegBin, ZeroInflatedNegBin  # noqa: PLC0415

    columns = {
        part: [f"{part}_{i}" for i in range(design.shape[1])]
        for part, design in case.designs.items()
    }
    obs = pd.concat(
        [pd.DataFrame(case.designs[part], columns=names) for part, names in columns.items()], axis=1
    ).rename(index=str)
    data = AnnData(dense(case.counts).astype(np.float32), obs=obs)
    formulas = {part: f"~ {' + '.join(names)} - 1" for part, names in columns.items()}
    inflated = "zero_inflation" in case.designs

    def fit():
        torch.manual_seed(0)
        model = (ZeroInflatedNegBin if inflated else NegBin)(dict(formulas), device="cpu")
        model.setup_data(data)
        model.fit(verbose=False, **options)
        coefficients = {
            part: model.parameters[part].loc[names].to_numpy(dtype=float)
            for part, names in columns.items()
        }
        if inflated:  # it models the mean of all counts, structural zeros among them
            coefficients["marginal_mean"] = coefficients.pop("mean")
        return Estimates(coefficients)

    return fit


def fit_scdesigner_converged(case):
    """Return its fit to all cells, without decay of the weights, for many epochs."""
    return fit_scdesigner(case, max_epochs=2000, val_frac=0.0, weight_decay=0.0)


def fit_adam(case, *, epochs=40, batch_size=512, lr=0.1):
    """Return the fit of early versions of scDesigner: Adam in single precision, few epochs."""
    import torch  # noqa: PLC0415
    from torch.nn.functional import logsigmoid  # noqa: PLC0415

    y = torch.tensor(dense(case.counts), dtype=torch.float32)
    designs = {part: torch.tensor(x, dtype=torch.float32) for part, x in case.designs.items()}

    def loss(theta, cells):
        eta, rho, zeta = (designs[part][cells] @ theta[part] for part in designs)
        counts, r, total = y[cells], rho.exp(), torch.logaddexp(eta, rho)
        value = torch.lgamma(counts + r) - torch.lgamma(r) - torch.lgamma(counts + 1)
        value = value + r * (rho - total) + counts * (eta - total) + logsigmoid(-zeta)
        at_zero = torch.logaddexp(logsigmoid(zeta), value)
        return -torch.where(counts == 0, at_zero, value).mean()

    def fit():
        generator = torch.Generator().manual_seed(0)
        theta = {
            part: torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
            for part, x in designs.items()
        }
        optimizer = torch.optim.Adam(theta.values(), lr=lr)
        for _ in range(epochs):
            for cells in torch.randperm(len(y), generator=generator).split(batch_size):
                optimizer.zero_grad()
                loss(theta, cells).backward()
                optimizer.step()
        return Estimates({part: own.detach().double().numpy() for part, own in theta.items()})

    return fit


TOOLS = {
    "sc_glm": Tool(fit_sc_glm, "sc_glm"),
    "statsmodels": Tool(fit_statsmodels, "statsmodels"),
    "pydeseq2": Tool(fit_pydeseq2, "pydeseq2"),
    "scdesigner": Tool(fit_scdesigner, "scdesigner"),
    "scdesigner_converged": Tool(fit_scdesigner_converged, "scdesigner"),
    "adam": Tool(fit_adam, "torch"),
}


def prepare(tool, case):
    """Return the fit and the tool's version."""
    warnings.simplefilter("ignore")  # of genes that did not converge: they are counted
    fit = TOOLS[tool].prepare(case)
    if tool == "sc_glm":  # need not be installed
        from sc_glm import __version__  # noqa: PLC0415

        return fit, __version__
    return fit, version(TOOLS[tool].package)
