"""What every public object owes its user: checked input, plain warnings, a state that is kept.

Here are the checks of arrays and tables, warnings that point at the user's line, the pickled state
of an estimator, and scikit-learn's callbacks. New code belongs here if objects of several rooms
need it and it knows nothing of counts, formulas or models. It imports no other room.
"""
