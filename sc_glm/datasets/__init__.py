"""Data to learn and to test with: simulated counts with their truth, and real ones.

Simulated counts come from presets that look like real screens; real ones are found in a file or
downloaded, and checked. New data sets belong here if a script of the repository prints what is
said of them.
"""

from sc_glm.datasets.fetched import fetch_pancreas, fetch_pbmc3k
from sc_glm.datasets.simulated import make_counts

__all__ = ["fetch_pancreas", "fetch_pbmc3k", "make_counts"]
