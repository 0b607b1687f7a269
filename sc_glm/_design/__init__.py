"""Design matrices: from the columns of `X` to each part's basis, and back to coefficients.

Here aliased columns are found, and factors of many levels are decomposed without an array of
cells x levels. New code belongs here if it asks what a design can estimate. Counts do not enter,
and neither do formulas: what arrives are the columns that a formula made.
"""
