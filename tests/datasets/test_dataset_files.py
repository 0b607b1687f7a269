import numpy as np
import scipy.sparse as sp
from numpy.testing import assert_array_equal

from sc_glm.datasets.dataset_files import counts_hash


def test_the_hash_of_counts_does_not_depend_on_their_format():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(0.5, size=(7, 5)).astype(np.int32))
    own = counts_hash(counts)
    unsorted = counts.copy()
    for start, end in zip(unsorted.indptr[:-1], unsorted.indptr[1:], strict=True):
        for array in (unsorted.data, unsorted.indices):
            array[start:end] = array[start:end][::-1].copy()
    unsorted.has_sorted_indices = False
    before = unsorted.indices.copy()
    forms = [counts.toarray(), counts.tocsc(), counts.astype(np.float32), unsorted]
    assert [counts_hash(form) for form in forms] == [own] * 4
    assert_array_equal(unsorted.indices, before)
    assert counts_hash(counts * 2) != own
