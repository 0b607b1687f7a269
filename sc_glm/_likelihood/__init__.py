"""The log-likelihood of a block of genes, with its gradient and Hessian.

Here each log-mass is written once (``family``), and passes over tiles of cells sum it up
(``objective``). New families belong here, and faster ways to the same sums. The modules know
tensors only: no NumPy, no pandas, no genes' names, no steps of a solver.
"""
