"""Parameters that are misspelled or misplaced, and devices that are not available."""

import pytest
import torch

from sc_glm import NegBinRegressor
from tests.estimators.simulations import BOTH, X_VALID, Y_VALID


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_an_unavailable_cuda_device_raises():
    with pytest.raises(ValueError, match="device='cuda'"):
        NegBinRegressor(device="cuda").fit(X_VALID, Y_VALID)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps"])
def test_an_unavailable_device_names_the_devices(device):
    with pytest.raises(ValueError, match=f"^device='{device}' with dtype='float64'") as caught:
        NegBinRegressor(device=device).fit([[0.0], [1.0]], [1, 2])
    assert "Devices are 'cpu'" in str(caught.value)
    assert len(str(caught.value)) < 350


@BOTH
def test_positional_and_unknown_parameters_raise(regressor):
    name = regressor.__name__
    formula = r"Formulas go to a FormulaTransformer .*make_pipeline\(FormulaTransformer\('~ x'\)"
    for positional, words in [
        (("~ x",), f"^{name} takes its parameters by name.*'~ x' was given.*{formula}"),
        ((0.5,), rf"^{name} takes .*{name}\(alpha=0.1\), but 0.5 was given"),
    ]:
        with pytest.raises(TypeError, match=words):
            regressor(*positional)
    with pytest.raises(TypeError, match=f"^{name} has no parameter 'mean'.*{formula}"):
        regressor(mean="~ x")
    with pytest.raises(TypeError, match=r"has no parameter 'n_job'\. Did you mean 'n_jobs'"):
        regressor(n_job=2)
