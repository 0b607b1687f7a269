"""Maximum-likelihood coefficients and a fit status for each gene, from blocks of counts.

Here are initial values, Newton's method in a trust region, multistart over several local maxima,
and infinite estimates. Blocks of genes are fitted by workers and written to checkpoints. New code
belongs here if it changes how a maximum is found, not what is maximised.
"""
