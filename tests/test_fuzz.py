"""Random models, replaced and folded, ten in a test; every tenth is shipped where that needs no other package."""

import fuzz
import keras
import pytest

GRAPHS = 300  # `nox -s fuzz` has more
EXPORT = {"tensorflow": "tf_saved_model", "torch": "torch"}.get(keras.config.backend())
pytestmark = pytest.mark.filterwarnings("ignore")  # of converters, and of copies of models with methods of their own


@pytest.mark.parametrize("first", range(0, 2 * GRAPHS, 20))  # Keras can't build the programs of some seeds
def test_random_models(first):
    wrong = [fuzz.report(made, None if place else EXPORT) for place, made in enumerate(fuzz.programs(10, first))]
    assert not any(wrong), "\n".join(filter(None, wrong))
