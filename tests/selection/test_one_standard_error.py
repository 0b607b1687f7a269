"""The one-standard-error rule."""

import numpy as np
import pandas as pd
import pytest

from sc_glm.selection import choose_model


# The choice
def small_table(shortfall, error, genes=("g2", "g1")):
    n_models = len(shortfall[0])
    names = ["a", "b", "c"][:n_models]
    return pd.DataFrame(
        {
            "gene": np.repeat(genes, n_models),
            "model": pd.Categorical(names * len(genes), categories=names, ordered=True),
            "shortfall": np.ravel(shortfall),
            "shortfall_error": np.ravel(error),
        }
    )


def test_the_simplest_within_one_standard_error():
    table = small_table([[0.3, 0.1, 0.0], [0.09, 0.0, 0.2]], [[0.2, 0.1, 0.0], [0.1, 0.0, 0.1]])
    chosen = choose_model(table)
    assert list(chosen) == ["b", "a"]
    assert list(chosen.index) == ["g2", "g1"]
    assert chosen.value_counts().to_dict() == {"a": 1, "b": 1, "c": 0}
    mixed = choose_model(table.iloc[[4, 2, 0, 3, 1, 5]])
    assert mixed.to_dict() == {"g1": "a", "g2": "b"}
    assert choose_model(table[table["gene"] == "g1"]).to_dict() == {"g1": "a"}


def test_rounding_chooses_no_model():
    table = small_table([[9e-7, 0.0], [2e-6, 0.0]], [[1e-9, 0.0], [1e-9, 0.0]])
    assert list(choose_model(table)) == ["a", "b"]


def test_invalid_tables_raise():
    table = small_table([[0.0, 0.1]], [[0.0, 0.1]], genes=["g"])
    with pytest.raises(TypeError, match="must be a frame of compare_models"):
        choose_model(table.drop(columns="shortfall"))
    with pytest.raises(TypeError, match="must be a frame of compare_models"):
        choose_model([1])
    with pytest.raises(TypeError, match="'model' must be categorical"):
        choose_model(table.astype({"model": str}))
    for wrong in (table[:1], pd.concat([table, table]), table.iloc[[0, 0]]):
        with pytest.raises(ValueError, match=r"one row for each of the models \['a', 'b'\]"):
            choose_model(wrong)
