import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from packaging.version import Version
from torch._inductor import config, cpp_builder, exc

from sc_glm import ZINBRegressor
from sc_glm._likelihood import fused
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._likelihood.fused import FusedTile, fused_tile, is_worth_fusing
from sc_glm._solver import fitting

CPU = torch.device("cpu")


def compiler():
    try:
        return cpp_builder.cpp_compiler_search(config.cpp.cxx)
    except exc.InvalidCxxCompiler:
        return None


def tile_terms(n_genes, n_cells, *, one_size=False, seed=0):
    """Predictors, some of them extreme, and counts."""
    generator = torch.Generator().manual_seed(seed)

    def normal(scale, columns=n_cells):
        return scale * torch.randn(n_genes, columns, generator=generator, dtype=torch.float64)

    rho = normal(3, 1) if one_size else normal(3)
    predictors = [normal(4), rho, normal(6)]
    predictors[0][0, :3] = torch.tensor([-700.0, 30, -40])
    predictors[2][-1, -3:] = torch.tensor([-745.0, 745, 300])
    y = torch.poisson(normal(1).exp(), generator=generator)
    return predictors, y


def flat(terms):
    return torch.stack([terms.value, *terms.score, *terms.hessian])


def copies(predictors):
    return [x.clone() for x in predictors]


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
def test_one_compilation_gives_the_terms_of_all_tiles(monkeypatch, tmp_path):
    # What torch 2.13 has kept under another ATEN_CPU_CAPABILITY, it takes again, and fails.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    tile = FusedTile(ZINBFamily())
    torch._dynamo.utils.counters.clear()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed, shape in enumerate([(8, 4096), (16, 1000), (3, 37), (2, 4), (1, 50)]):
            predictors, y = tile_terms(*shape, seed=seed)
            ours = flat(tile(copies(predictors), y))
            theirs = flat(ZINBFamily().tile(copies(predictors), y))
            assert ours.isfinite().all()
            size = 1 + y * (1 + predictors[0].abs()) + predictors[1].exp() + predictors[2].abs()
            assert ((ours - theirs).abs() <= 1e-13 * size).all()
    assert tile.works
    # Older versions compile up to three.
    allowed = 1 if Version(torch.__version__) >= Version("2.13") else 3
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= allowed


def test_without_a_compiler_terms_equal_the_familys(monkeypatch, capfd):
    def missing(*_, **__):
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    # Without its caches, which nobody else switches off, torch 2.14 tells what it leaves behind.
    monkeypatch.setattr("torch._inductor.utils.log.disabled", True)
    torch._dynamo.reset()
    tile = FusedTile(ZINBFamily())
    predictors, y = tile_terms(5, 23, one_size=True)
    ours, again = (flat(tile(copies(predictors), y)) for _ in range(2))
    assert not tile.works
    assert torch.equal(ours, flat(ZINBFamily().tile(copies(predictors), y)))
    assert torch.equal(ours, again)
    assert capfd.readouterr() == ("", "")


def test_the_tile_of_a_family_is_compiled_once():
    assert fused_tile(ZINBFamily()) is fused_tile(ZINBFamily())
    assert fused_tile(ZINBFamily()) is not fused_tile(NegBinFamily())


def test_only_large_zero_inflated_fits_on_a_cpu_are_compiled():
    n_entries = fused.MIN_ENTRIES
    assert is_worth_fusing(ZINBFamily(), n_entries, CPU, torch.float64)
    assert not is_worth_fusing(ZINBFamily(), n_entries - 1, CPU, torch.float64)
    assert not is_worth_fusing(NegBinFamily(), n_entries, CPU, torch.float64)
    assert not is_worth_fusing(ZINBFamily(), n_entries, CPU, torch.float32)
    assert not is_worth_fusing(ZINBFamily(), n_entries, torch.device("cuda"), torch.float64)


def test_a_large_fit_is_compiled_and_has_the_same_maximum(monkeypatch):
    calls = []

    def tile(family):
        calls.append(family)
        return family.tile

    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 1))
    y = rng.poisson(np.exp(0.5 + 0.3 * X), size=(60, 4)) * (rng.uniform(size=(60, 4)) > 0.3)
    monkeypatch.setattr("sc_glm._solver.gene_block.fused_tile", tile)
    plain = ZINBRegressor().fit(X, y)
    assert not calls
    monkeypatch.setattr(fused, "MIN_ENTRIES", 60 * 4)
    assert fitting.is_worth_fusing is fused.is_worth_fusing
    large = ZINBRegressor(batch_size=2).fit(X, y)
    assert len(calls) == 2
    assert_allclose(large.log_likelihood_, plain.log_likelihood_, rtol=1e-12)
