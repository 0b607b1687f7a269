"""Design matrices: from the columns of `X` to each part's basis, and back to coefficients.

Here aliased columns are found, and factors of many levels are decomposed without an array of
cells x levels. New code belongs here if it is about what a design can estimate, or how its
coefficients are penalised. Counts and formulas belong elsewhere: the input is the matrix that a
formula made.
"""
