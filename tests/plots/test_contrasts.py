from sc_glm.plots.contrasts import sides_of


def test_sides_of_a_contrast_are_its_reference_and_its_level():
    assert sides_of(("cell_type", "T", "B")) == ("B", "T")
    assert sides_of(("cell_type", "T", "rest")) == ("the rest", "T")
    assert sides_of(("pseudotime", 1.0, 0)) == ("pseudotime 0", "pseudotime 1.0")
    assert sides_of("cell_type[T.T] = 0") is None
    assert sides_of([1.0, 0.0, -1.0]) is None
