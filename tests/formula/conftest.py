import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    n = 60
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "depth": rng.integers(500, 5000, size=n),
            "kind": rng.choice(["a", "b", "c"], size=n),
            "level": pd.Categorical(rng.choice(["hi", "lo"], size=n), categories=["lo", "hi"]),
            "batch": rng.integers(1, 4, size=n),
            "flag": rng.random(n) < 0.5,
        },
        index=[f"cell{i}" for i in range(n)],
    )
