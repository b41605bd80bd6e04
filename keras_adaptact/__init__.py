"""Trainable activation functions for Keras 3, on JAX, PyTorch and TensorFlow alike."""

from keras_adaptact import functional as functional
from keras_adaptact.activations import PELU as PELU
from keras_adaptact.activations import AdaptiveActivation as AdaptiveActivation
from keras_adaptact.activations import AReLU as AReLU
from keras_adaptact.activations import ASigmoid as ASigmoid
from keras_adaptact.activations import ATanh as ATanh
from keras_adaptact.activations import FReLU as FReLU
from keras_adaptact.activations import Swish as Swish
from keras_adaptact.base import TrainableActivation as TrainableActivation
from keras_adaptact.divergence import Divergence as Divergence
from keras_adaptact.divergence import StopOnDivergence as StopOnDivergence
from keras_adaptact.folding import fold_activations as fold_activations
from keras_adaptact.folding import plan_folding as plan_folding
from keras_adaptact.health import check as check
from keras_adaptact.history import ActivationHistory as ActivationHistory
from keras_adaptact.inspection import activation_table as activation_table
from keras_adaptact.inspection import mixing_weights as mixing_weights
from keras_adaptact.inspection import nearest as nearest
from keras_adaptact.inspection import observe as observe
from keras_adaptact.inspection import trainable_activations as trainable_activations
from keras_adaptact.loops import apply_constraints as apply_constraints
from keras_adaptact.loops import parameter_groups as parameter_groups
from keras_adaptact.loops import parameter_labels as parameter_labels
from keras_adaptact.mixtures import Method1 as Method1
from keras_adaptact.mixtures import Method2 as Method2
from keras_adaptact.mixtures import Mixture as Mixture
from keras_adaptact.normalization import plan_normalization as plan_normalization
from keras_adaptact.normalization import replace_normalization as replace_normalization
from keras_adaptact.overview import site as site
from keras_adaptact.overview import summary as summary
from keras_adaptact.parameters import Parameter as Parameter
from keras_adaptact.plots import animate_activations as animate_activations
from keras_adaptact.plots import plot_activations as plot_activations
from keras_adaptact.prelu import PReLU as PReLU
from keras_adaptact.registry import get as get
from keras_adaptact.registry import names as names
from keras_adaptact.registry import register as register
from keras_adaptact.smooth import XIELU as XIELU
from keras_adaptact.smooth import Derf as Derf
from keras_adaptact.smooth import DyT as DyT
from keras_adaptact.smooth import Snake as Snake
from keras_adaptact.surgery import plan_replacement as plan_replacement
from keras_adaptact.surgery import replace_activations as replace_activations
from keras_adaptact.training import freeze_activations as freeze_activations
from keras_adaptact.training import only_activations as only_activations
from keras_adaptact.training import optimizer_for as optimizer_for
from keras_adaptact.training import unfreeze_activations as unfreeze_activations

__version__ = "0.2.0"


def __dir__() -> list[str]:
    """The public names, without the modules that they come from."""
    module = type(functional)
    found = {name for name, value in globals().items() if not name.startswith("_") and not isinstance(value, module)}
    return sorted(found | {"functional", "__version__", "__doc__", "__name__", "__file__"})
