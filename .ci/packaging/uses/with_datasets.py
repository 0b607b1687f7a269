"""What fetches data sets is there; nothing is fetched."""

import pooch

import sc_glm as sg

assert sg.datasets.fetch_pancreas
assert pooch.__version__
