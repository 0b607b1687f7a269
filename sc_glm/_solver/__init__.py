"""From a block of genes to maximum-likelihood coefficients and a fit status for each gene.

Here are initial values, Newton steps in a trust region, the search among several maxima, and what
becomes of estimates that are infinite; then all blocks, on workers and with checkpoints. New code
belongs here if it changes how a maximum is found, not what is maximised.
"""
