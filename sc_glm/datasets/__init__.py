"""Data for examples and tests: simulated counts with their true parameters, and real counts.

Simulated counts come from presets that resemble real screens. Real counts are read from a file or
downloaded, and checked. New data sets belong here if a script of the repository reproduces the
numbers in their description.
"""

from sc_glm.datasets.fetched import fetch_pancreas, fetch_pbmc3k
from sc_glm.datasets.simulated import make_counts

__all__ = ["fetch_pancreas", "fetch_pbmc3k", "make_counts"]
