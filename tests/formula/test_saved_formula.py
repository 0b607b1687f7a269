import pickle
import subprocess
import sys

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tests.formula.designs import STATEFUL, fit

# Batches of the cells are whole numbers. The warning about them has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Whole numbers get one slope")


@pytest.mark.parametrize("formula", STATEFUL)
def test_pickles_are_small_and_whole(cells, formula):
    big = pd.concat([cells] * 500, ignore_index=True)
    model = fit(big, formula)
    stored = pickle.dumps(model)
    assert len(stored) < 20_000
    assert_frame_equal(pickle.loads(stored).transform(cells), model.transform(cells))  # noqa: S301


def test_pickle_opens_in_another_process(cells, tmp_path):
    model = fit(cells, "~ bs(x, df=5) + C(kind, contr.sum)")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    cells.to_pickle(tmp_path / "cells.pkl")
    code = (
        "import pickle, sys, pandas as pd; p = sys.argv[1];"
        "m = pickle.load(open(p + '/model.pkl', 'rb'));"
        "m.transform(pd.read_pickle(p + '/cells.pkl').head(2)).to_pickle(p + '/out.pkl')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)  # noqa: S603
    assert_frame_equal(pd.read_pickle(tmp_path / "out.pkl"), model.transform(cells.head(2)))  # noqa: S301
