"""Data to learn and to test with: simulated counts with their truth, and real ones."""

from sc_glm.datasets_fetched import fetch_pancreas, fetch_pbmc3k
from sc_glm.datasets_simulated import make_counts

__all__ = ["fetch_pancreas", "fetch_pbmc3k", "make_counts"]
