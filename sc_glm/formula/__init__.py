"""Formulas: from a table of covariates to one design for each part of the model.

Here formulas are read, their Python expressions checked before they run, and the state of a fit
frozen for new cells. New functions and splines of formulas belong here. It alone imports formulaic,
and it meets the regressors in the column names of `X` only.
"""

from sc_glm.formula.transformer import FormulaTransformer

__all__ = ["FormulaTransformer"]
