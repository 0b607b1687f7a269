"""Tables of tests as the displays read them."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from sc_glm.plots import MeanFoldChangeDisplay, PValueDisplay, VolcanoDisplay

pytestmark = pytest.mark.usefixtures("pyplot")

of_tables = pytest.mark.parametrize(
    "display",
    [MeanFoldChangeDisplay, PValueDisplay, VolcanoDisplay],
    ids=lambda display: display.__name__,
)


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "contrast": "a vs b",
            "base_mean": [3.0, 5.0],
            "log2_fold_change": [1.0, -2.0],
            "p_value": [0.3, 0.01],
            "p_adjusted": [0.3, 0.02],
        },
        index=pd.Index(["Ins1", "Pyy"], name="gene"),
    )


@of_tables
def test_one_contrast_of_several_is_chosen_by_the_user(table, display):
    several = pd.concat([table, table.assign(contrast="a vs c")])
    with pytest.raises(
        ValueError, match=r"2 contrasts, \['a vs b', 'a vs c'\]: .*table\['contrast'\] == 'a vs b'"
    ):
        display.from_table(several)
    chosen = display.from_table(several[several["contrast"] == "a vs c"])
    assert_array_equal(chosen.p_value, table["p_value"])


@of_tables
def test_several_rows_of_a_gene_are_refused(table, display):
    with pytest.raises(ValueError, match="several rows of 'Ins1': choose those of one part"):
        display.from_table(table.iloc[[0, 1, 0]])


@pytest.mark.parametrize("name", ["gene", None, "anything"])
@pytest.mark.parametrize("display", [MeanFoldChangeDisplay, VolcanoDisplay])
def test_genes_are_named_by_the_index_or_a_column(table, display, name):
    assert display.from_table(table.rename_axis(name)).genes == ["Ins1", "Pyy"]
    assert display.from_table(table.rename_axis("gene").reset_index()).genes == ["Ins1", "Pyy"]


@of_tables
def test_a_table_is_not_changed(table, display):
    before = table.copy()
    display.from_table(table)
    pd.testing.assert_frame_equal(table, before)


def test_gene_names_that_are_no_strings(table):
    display = VolcanoDisplay.from_table(table.set_axis(np.array([10, 20])), genes="10")
    assert display.genes == ["10", "20"]
    assert {label.get_text() for label in display.labels_} == {"10", "20"}


@pytest.mark.parametrize("display", [MeanFoldChangeDisplay, VolcanoDisplay])
def test_few_significant_genes_are_seen_among_many_others(display):
    n = 3000
    table = pd.DataFrame(
        {"base_mean": 1.0, "log2_fold_change": np.linspace(-1, 1, n), "p_value": 0.5}
    ).assign(p_adjusted=0.9)
    table.loc[:9, ["p_value", "p_adjusted"]] = 1e-6
    points = display.from_table(table, n_labels=0).points_
    assert points["down"].get_markersize() > points["other"].get_markersize()
    assert points["down"].get_alpha() > points["other"].get_alpha()
    assert points["up"].get_markersize() == points["down"].get_markersize()
