"""Formulas whose state comes from the fit, and a short way to fit one."""

from sc_glm.formula import FormulaTransformer

STATEFUL = [
    "~ bs(x, df=5)",
    "~ cs(x, df=4) + cc(depth, df=3, lower_bound=0, upper_bound=6000)",
    "~ scale(x) + center(depth)",
    "~ standardize(np.log(depth))",
    "~ poly(x, 3)",
    "~ C(kind)",
    "~ C(kind, contr.sum) * x",
    "~ C(kind, Treatment('b')) + C(batch, contr.helmert):x",
    "~ kind + level:x + flag",
    "~ 0 + level",
    "~ bs(scale(x), df=4) + scale(center(depth))",
    "~ hashed(kind, levels=3)",
    "~ np.log(depth) + {x**2 / depth} + I(x > 0)",
    "~ .",
]


def fit(X, mean=None, **parts):
    return FormulaTransformer(mean=mean, **parts).fit(X)
