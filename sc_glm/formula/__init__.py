"""Formulas: from a table of covariates to one design matrix for each part of the model.

Here formulas are parsed, their Python expressions are checked before they run, and the state of a
fit is kept for new cells. Linear constraints on coefficients are parsed here, too. New functions
and splines belong here: their names in `allowed_names`, their code in `splines`, both in `CONTEXT`
of `model_matrix`. Only this room imports
formulaic, in `parsing`, `model_matrix` and `saved_formula`. Regressors know formulas only by the
column names of `X`.
"""

from sc_glm.formula.transformer import FormulaTransformer

__all__ = ["FormulaTransformer"]
