import json
import shutil
import tracemalloc
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sc_glm._counts.count_matrix import CountMatrix
from sc_glm._counts.tally import Grouping
from sc_glm._design.design import PartDesign
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._solver import checkpoint
from sc_glm._solver.checkpoint import Checkpoint, fingerprint
from sc_glm._solver.gene_block import Designs, GeneFits, Settings, fit_block

N_CELLS, N_GENES = 40, 6
RNG = np.random.default_rng(3)
X = np.c_[np.ones(N_CELLS), RNG.normal(size=N_CELLS)]
Y = RNG.negative_binomial(2, 0.3, size=(N_CELLS, N_GENES))
Y[:, 1] = 0
WEIGHTS = RNG.integers(1, 3, size=N_CELLS).astype(float)
OFFSET = RNG.normal(size=N_CELLS)


def designs(mean=X, size=X[:, :1], *, weights=WEIGHTS, offset=OFFSET, penalised=None, cells=None):
    parts = {
        "mean": PartDesign.of(mean, WEIGHTS, penalised=penalised),
        "dispersion": PartDesign.of(size, WEIGHTS),
    }
    return Designs(parts, offset, weights, cells)


SETTINGS = Settings(max_iter=50, tol=1e-7, device=torch.device("cpu"), dtype=torch.float64)
COUNTS = CountMatrix.of(Y, n_cells=N_CELLS)
PROBLEM = {
    "family": NegBinFamily(),
    "counts": COUNTS,
    "designs": designs(),
    "settings": SETTINGS,
    "start": None,
}


def fit(first, stop):
    counts = COUNTS.by_gene(slice(first, stop))
    return fit_block(PROBLEM["family"], counts, PROBLEM["designs"], SETTINGS, None)


FIRST, LAST = fit(0, 4), fit(4, 6)


def assert_identical(fits, expected):
    for field in fields(GeneFits):
        np.testing.assert_equal(getattr(fits, field.name), getattr(expected, field.name))


@pytest.fixture
def begun(tmp_path):
    """Return a checkpoint of which the first block is done."""
    result = Checkpoint.open(tmp_path / "fit", **PROBLEM)
    result.write(0, FIRST)
    return result


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back_exactly(begun):
    begun.write(4, LAST)
    blocks = Checkpoint.open(begun.folder, **PROBLEM).read()
    assert list(blocks) == [0, 4]
    assert_identical(blocks[0], FIRST)
    assert_identical(blocks[4], LAST)
    assert list(blocks[0].coef) == ["mean", "dispersion"]
    assert [type(status) for status in blocks[0].status] == [type(s) for s in FIRST.status]


def test_what_the_folder_holds(begun):
    assert names(begun.folder) == ["genes-000000-000004.npz", "manifest.json"]
    manifest = json.loads((begun.folder / "manifest.json").read_text())
    assert manifest["settings"]["max_iter"] == 50
    assert manifest["settings"]["number of genes"] == N_GENES


def test_a_folder_may_be_new_or_empty_or_hold_hidden_files(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".directory").touch()
    for folder in (str(tmp_path / "a" / "b"), tmp_path / "c"):
        assert Checkpoint.open(folder, **PROBLEM).read() == {}


def wide(y):
    matrix = sp.csc_array(y)
    matrix.indices, matrix.indptr = matrix.indices.astype(int), matrix.indptr.astype(int)
    return matrix


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_array, wide, np.float32, np.asfortranarray])
def test_the_form_of_the_counts_does_not_matter(begun, form):
    counts = CountMatrix.of(form(Y), n_cells=N_CELLS)
    assert list(Checkpoint.open(begun.folder, **PROBLEM | {"counts": counts}).read()) == [0]


def test_the_device_does_not_matter(begun):
    elsewhere = replace(SETTINGS, device=torch.device("meta"))
    assert list(Checkpoint.open(begun.folder, **PROBLEM | {"settings": elsewhere}).read()) == [0]


def changed(values, by=1.0):
    values = np.array(values, dtype=float)
    values.flat[-1] += by
    return values


START = FIRST.coef
PENALISED = np.array([False, True])
OTHERS = {
    "counts": {"counts": CountMatrix.of(changed(Y), n_cells=N_CELLS)},
    "gene names": {"counts": CountMatrix(Y, COUNTS.names[::-1], one_dimensional=False)},
    "offset": {"designs": designs(offset=changed(OFFSET))},
    "weights": {"designs": designs(weights=changed(WEIGHTS))},
    "mean design or penalty": {"designs": designs(mean=changed(X))},
    "dispersion design or penalty": {"designs": designs(size=2 * X[:, :1])},
    "warm start": {"start": START},
    "family (NegBinFamily(parts=('mean', 'dispersion')) there, ZINBFamily(parts=('mean', "
    "'dispersion', 'zero_inflation')) here)": {"family": ZINBFamily()},
    "max_iter (50 there, 51 here)": {"settings": replace(SETTINGS, max_iter=51)},
    "tol (1e-07 there, 1e-08 here)": {"settings": replace(SETTINGS, tol=1e-8)},
    "dtype (torch.float64 there, torch.float32 here)": {
        "settings": replace(SETTINGS, dtype=torch.float32)
    },
}


def test_penalties_are_distinguished():
    kinds = [{}, {"penalised": PENALISED}, {"penalised": PENALISED, "strength": 2.0}]
    assert len({PartDesign.of(X, WEIGHTS, **kind).source for kind in kinds}) == 3


@pytest.mark.parametrize("what", OTHERS)
def test_another_fit_is_refused_and_the_message_says_what_differs(begun, what):
    before = (begun.folder / "manifest.json").read_bytes()
    with pytest.raises(ValueError) as error:
        Checkpoint.open(begun.folder, **PROBLEM | OTHERS[what])
    assert f"which differs in: {what}. " in str(error.value)
    assert str(begun.folder) in str(error.value)
    assert (begun.folder / "manifest.json").read_bytes() == before


def test_all_differences_are_named(begun):
    counts = CountMatrix.of(Y[:, :3], n_cells=N_CELLS)
    message = r"number of genes \(6 there, 3 here\), counts, gene names\."
    with pytest.raises(ValueError, match=message):
        Checkpoint.open(begun.folder, **PROBLEM | {"counts": counts})


def test_warm_starts_are_distinguished(tmp_path):
    Checkpoint.open(tmp_path, **PROBLEM | {"start": START})
    other = START | {"dispersion": changed(START["dispersion"])}
    with pytest.raises(ValueError, match="differs in: warm start"):
        Checkpoint.open(tmp_path, **PROBLEM | {"start": other})


def test_deduplications_are_distinguished(tmp_path):
    """Though rows, and what they weigh in all, are the same."""
    rows = np.arange(N_CELLS)
    cells = Grouping(rows, WEIGHTS)
    Checkpoint.open(tmp_path, **PROBLEM | {"designs": designs(cells=cells)})
    for other in (
        designs(),
        designs(cells=Grouping(np.r_[1, 0, rows[2:]], WEIGHTS)),
        designs(cells=Grouping(rows, changed(WEIGHTS))),
    ):
        with pytest.raises(ValueError, match="differs in: cells that are alike"):
            Checkpoint.open(tmp_path, **PROBLEM | {"designs": other})


def test_another_version_is_refused(begun, monkeypatch):
    here = checkpoint.version("sc_glm")
    monkeypatch.setattr(checkpoint, "version", lambda _: "9.0")
    with pytest.raises(ValueError, match=rf"version \({here} there, 9.0 here\)"):
        Checkpoint.open(begun.folder, **PROBLEM)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\x00garbage", b"{", b"[]", b"{}", b"null", b'{"settings": [], "data": 3}'],
)
def test_a_foreign_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"manifest\.json is not the manifest .* Name an empty folder"
    ):
        Checkpoint.open(tmp_path, **PROBLEM)
    assert (tmp_path / "manifest.json").read_bytes() == content


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"holds files but no manifest\.json: \['thesis\.tex'\]"):
        Checkpoint.open(tmp_path, **PROBLEM)
    assert names(tmp_path) == ["thesis.tex"]


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match=r"checkpoint_dir='.*file' is a file"):
        Checkpoint.open(file, **PROBLEM)
    with pytest.raises(OSError, match=r"checkpoint_dir='.*below' cannot be created or written: "):
        Checkpoint.open(file / "below", **PROBLEM)


def test_a_folder_that_became_read_only_is_refused(begun, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match=r"cannot be created or written: .*Permission denied"):
        Checkpoint.open(begun.folder, **PROBLEM)


def block_of(folder):
    (path,) = folder.glob("*.npz")
    return path


def refusal(begun):
    """Return the message with which the checkpoint is refused."""
    with pytest.raises(ValueError) as error:
        begun.read()
    message = str(error.value)
    assert str(begun.folder / "genes-") in message
    assert "Delete it to have its genes fitted again." in message
    return message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_block_is_refused(begun, share):
    path = block_of(begun.folder)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "is not a block of this fit, or is damaged" in refusal(begun)


def test_no_changed_byte_changes_the_results(begun):
    path = block_of(begun.folder)
    content = path.read_bytes()
    refused = 0
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            (fits,) = begun.read().values()
        except ValueError as error:
            assert "damaged" in str(error)  # noqa: PT017
            refused += 1
        else:
            assert_identical(fits, FIRST)  # the damaged bytes were a date or other metadata
    assert refused > len(content) / 5 / 2


def rewrite(path, **changes):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coef.mean": np.zeros((3, 4))}, "shapes"),
        ({"coef.mean": np.zeros((2, 3))}, "shapes"),
        ({"coef.zero_inflation": np.zeros((1, 4))}, "shapes"),
        ({"undetermined.mean": np.zeros((2, 3), bool)}, "shapes"),
        ({"log_likelihood": np.zeros(3)}, "shapes"),
        ({"n_iter": np.array(3)}, "unsized"),
        ({"coef.mean": np.full((2, 4), np.nan)}, "not finite"),
        ({"coef.dispersion": np.full((1, 4), np.inf)}, "not finite"),
        ({"coef.mean": np.full((2, 4), None)}, "allow_pickle"),
        ({"about": np.array("{}")}, "status"),
        ({"about": np.array("garbage")}, "Expecting value"),
    ],
)
def test_foreign_contents_are_refused(begun, changes, message):
    rewrite(block_of(begun.folder), **changes)
    assert message in refusal(begun)


def test_an_unknown_status_is_refused(begun):
    path = block_of(begun.folder)
    with np.load(path) as file:
        about = json.loads(file["about"].item())
    about["status"][2] = "splendid"
    rewrite(path, about=np.array(json.dumps(about)))
    assert "splendid" in refusal(begun)


def test_a_renamed_block_is_refused(begun):
    block_of(begun.folder).rename(begun.folder / "genes-000002-000006.npz")
    assert "another fit" in refusal(begun)


def test_a_block_beyond_the_genes_is_refused(begun):
    begun.write(4, FIRST)
    assert "shapes" in refusal(begun)


def test_a_block_of_another_fit_is_refused(begun, tmp_path):
    other = Checkpoint.open(tmp_path / "other", **PROBLEM | OTHERS["counts"])
    other.write(4, LAST)
    shutil.copy(block_of(other.folder), begun.folder)
    assert "genes-000004-000006.npz" in refusal(begun)
    assert "another fit" in refusal(begun)


def test_fits_that_share_a_folder_do_not_disturb_each_other(begun):
    other = Checkpoint.open(begun.folder, **PROBLEM)
    other.write(0, fit(0, 1))
    other.write(2, fit(2, 5))
    begun.write(0, FIRST)
    begun.write(4, LAST)
    blocks = other.read()
    assert {first: len(fits.status) for first, fits in blocks.items()} == {0: 4, 4: 2}
    assert_identical(blocks[0], FIRST)


def test_a_write_that_fails_leaves_nothing(begun, monkeypatch):
    before = names(begun.folder)

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        begun.write(4, LAST)
    assert names(begun.folder) == before


def test_a_large_matrix_is_not_copied():
    matrix = sp.random_array((20_000, 4_000), density=0.02, format="csc", random_state=4)
    counts = CountMatrix(matrix, np.arange(4_000).astype(object), one_dimensional=False)
    tracemalloc.start()
    fingerprint(NegBinFamily(), counts, designs(), SETTINGS, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.3 * (matrix.data.nbytes + matrix.indices.nbytes)
