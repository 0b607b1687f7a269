import pytest

from tests.inference.simulated import COUNTS, OBS, pipeline


@pytest.fixture(scope="package")
def model():
    """A fit with an offset, which tests leave as it is."""
    return pipeline().fit(OBS, COUNTS)
