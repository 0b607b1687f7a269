import os

import pytest
import torch
from hypothesis import settings

# Plots open no windows.
os.environ.setdefault("MPLBACKEND", "Agg")

# The same examples in every run, however slow the machine.
settings.register_profile("sc_glm", deadline=None, derandomize=True)
settings.load_profile("sc_glm")

# Tests run side by side; threads inside small operations would only get in each other's way.
torch.set_num_threads(1)


@pytest.fixture
def pyplot():
    """matplotlib's pyplot, without figures before and after."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - not for the other tests

    plt.close("all")
    yield plt
    plt.close("all")
