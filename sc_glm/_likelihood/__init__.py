"""The log-likelihood of a block of genes, with its gradient and Hessian.

Here each log-mass is written once (``family``), and passes over tiles of cells sum it up
(``objective``). New families belong here, and faster ways to the same sums. The modules use tensors
only. NumPy, pandas, names of genes and steps of a solver belong elsewhere.
"""
