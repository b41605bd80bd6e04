"""Every tenth of the random models of tests/test_fuzz.py, folded, exported in one format after the other, and run."""

import fuzz
import keras
import pytest

FORMATS = {
    "tensorflow": ("tf_saved_model", "onnx", "openvino", "litert"),
    "torch": ("onnx", "openvino", "torch"),
    "jax": ("tf_saved_model", "onnx"),
}[keras.config.backend()]
pytestmark = pytest.mark.filterwarnings("ignore")  # of converters, and of copies of models with methods of their own


@pytest.mark.parametrize("place", range(30))
def test_random_models(place):
    (made,) = fuzz.programs(1, 20 * place)
    assert (wrong := fuzz.report(made, FORMATS[place % len(FORMATS)])) is None, wrong
