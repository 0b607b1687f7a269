"""Duties of every public object: checks of input, warnings, saved state, callbacks, docstrings.

Here are checks of arrays and tables, warnings that point at the user's line, the pickled state of
an estimator, scikit-learn's callbacks, and shared entries of docstrings. New code belongs here if
several rooms need it, and if it does not depend on counts, formulas or models. It imports no other
room.
"""
