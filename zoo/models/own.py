"""Networks that aren't the zoo's: what a user's function builds, and networks of Keras's with other activations."""

import difflib
import inspect
from collections import Counter
from functools import partial
from typing import Any

import keras
import numpy as np

import keras_adaptact as ka
from keras_adaptact import keras_private
from zoo import owncode
from zoo.config.own import Application, Built, Hub
from zoo.config.schema import Config
from zoo.data.splits import Form
from zoo.errors import ConfigError, first_line
from zoo.models import hub
from zoo.models.blocks import Factory, check_rules, rule_of

APART = {"gelu_approximate": partial(keras.activations.gelu, approximate=True)}  # what Keras has no name for
KNOWN = ("relu", "silu", "hard_silu", "gelu", "relu6", "elu", "selu", "leaky_relu", "tanh", "mish", "softplus")
ENDS = ("softmax", "log_softmax", "sigmoid", "Softmax", "LogSoftmax", "Sigmoid")  # layers, operations and functions


def build(config: Config, activation: Factory, form: Form) -> keras.Model:
    """The network of a config, which gives a logit for each class, or the numbers that are to be learned."""
    chosen = config.model
    if isinstance(chosen, Built):
        return _built(chosen, config, activation, form)
    if isinstance(chosen, Hub):
        return hub.with_head(chosen, _replaced(chosen, hub.backbone(chosen, form), config), form)
    assert isinstance(chosen, Application)
    return _replaced(chosen, _application(chosen, form), config)


def _built(chosen: Built, config: Config, activation: Factory, form: Form) -> keras.Model:
    made: dict[str, keras.layers.Layer] = {}

    def make(site: str) -> keras.layers.Layer:
        if not isinstance(site, str) or not site or site in made:
            raise ConfigError(f"{chosen.build}: activation(name) takes a name, another one each time; found {site!r}")
        made[site] = activation(site)
        return made[site]

    _check_options(chosen)
    model = owncode.call(chosen.build, make, **chosen.options)
    if not isinstance(model, keras.Model):
        raise ConfigError(f"{chosen.build}: returned a {type(model).__name__}, and no Keras model")
    _check_form(chosen.build, model, form)
    there = {id(layer) for layer in keras_private.flattened(model)}
    sites = [site for site, layer in made.items() if id(layer) in there]
    if not sites:
        raise ConfigError(f"{chosen.build}: the network has no sites: call activation(name), and its layer")
    if len(sites) < len(made):
        unused = next(site for site in made if site not in sites)
        raise ConfigError(f"{chosen.build}: activation({unused!r}) is called, and its layer isn't in the network")
    if isinstance(config.activation, list):
        check_rules(config.activation, sites)
    return model


def _check_options(chosen: Built) -> None:
    try:
        inspect.signature(owncode.function(chosen.build)).bind(None, **chosen.options)
    except TypeError as error:
        raise ConfigError(f"model: {chosen.build}: it is called with activation and these options: {error}") from None
    except ValueError:  # a callable without a signature
        return


def _check_form(where: str, model: keras.Model, form: Form) -> None:
    """It takes such samples, and returns what is to be learned of them."""
    sample = keras.KerasTensor((None, *form.shape), "int32" if form.dtype == "int32" else "float32")
    try:
        found = model(sample)
    except Exception as error:  # of Keras and of a backend
        first = first_line(error)
        raise ConfigError(
            f"{where}: the network doesn't take samples of shape {form.shape}: {type(error).__name__}: {first}"
        ) from error
    if not isinstance(found, keras.KerasTensor):
        raise ConfigError(f"{where}: the network has several outputs; one is trained")
    outputs = tuple(found.shape[1:])
    if outputs != form.outputs:
        wanted = f"has {len(form.classes)} classes" if form.classes else "has numbers to be learned"
        at = f" at each of {form.target} places" if form.classes and form.target else ""
        raise ConfigError(
            f"{where}: the network has outputs of shape {outputs}, and the data {wanted}{at}; expected {form.outputs}"
        )
    if form.classes and (end := _end(model)) in ENDS:
        raise ConfigError(f"{where}: the network ends with {end}; expected logits, which the loss takes: leave it out")


def _end(model: keras.Model) -> str:
    """What a functional model does last."""
    outputs = getattr(model, "outputs", None)
    last = keras_private.maker_of(outputs[0]) if outputs else None
    if last is None:
        return ""
    if isinstance(last, keras.Model):
        return _end(last)
    function = getattr(last, "activation", None)
    return getattr(function, "__name__", type(function).__name__) if function is not None else type(last).__name__


def _application(chosen: Application, form: Form) -> keras.Model:
    known = [name for name in dir(keras.applications) if inspect.isfunction(getattr(keras.applications, name))]
    if chosen.application not in known:
        near = difflib.get_close_matches(chosen.application, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"model.application: Keras has no network {chosen.application!r}; {hint}")
    if not form.is_picture or len(form.outputs) != 1:
        raise ConfigError(
            f"model.application: {chosen.application} takes images (height, width, channels) and gives one row for "
            f"each, and the data has samples {form.shape} with targets {form.target}"
        )
    function = getattr(keras.applications, chosen.application)
    options: dict[str, Any] = {"weights": chosen.weights, "input_shape": form.shape} | chosen.options
    if "include_preprocessing" in inspect.signature(function).parameters:
        options.setdefault("include_preprocessing", False)  # images are standardized before
    try:
        if chosen.weights is None:
            return function(classes=form.outputs[0], classifier_activation=None, **options)
        body = function(include_top=False, pooling="avg", **options)
    except Exception as error:  # of Keras, and of a download
        first = first_line(error, 300)
        raise ConfigError(f"model.application: {chosen.application}: {type(error).__name__}: {first}") from error
    outputs = keras.layers.Dense(form.outputs[0], dtype="float32", name="logits")(body.output)
    return keras.Model(body.inputs, outputs, name=body.name)


def _replaced(chosen: Application | Hub, model: keras.Model, config: Config) -> keras.Model:
    """The same network with the activations of a config where it had its own."""
    rules = config.activation if isinstance(config.activation, list) else [config.activation]
    source = chosen.source or _commonest(model)
    try:
        wanted = APART.get(source, source)
        sites = [site.name for site in ka.plan_replacement(model, wanted, "linear") if site.replaced]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.source: {error}") from None
    if not sites:
        raise ConfigError(
            f"model.source: {source!r} is at no site of {chosen.called}; there are "
            f"{', '.join(sorted({site.function for site in ka.summary(model)}))}"
        )
    firsts = {site: rule_of(config.activation, site) for site in sites}
    if isinstance(config.activation, list):
        check_rules(config.activation, sites)
    for index in sorted(set(firsts.values())):
        mine = [site for site, first in firsts.items() if first == index]
        try:
            model = ka.replace_activations(model, wanted, rules[index].options(), layers=mine)
        except (TypeError, ValueError) as error:
            where = f"activation.{index}" if isinstance(config.activation, list) else "activation"
            raise ConfigError(f"{where}: {error}") from None
    return model


def _commonest(model: keras.Model) -> str:
    """The activation that most of a network's sites have; sigmoids, which are gates, and the like don't count."""
    z = np.linspace(-8.0, 8.0, 65, dtype="float32")
    functions = {name: keras.activations.get(name) for name in KNOWN} | APART
    known = {name: keras.ops.convert_to_numpy(function(z)) for name, function in functions.items()}
    counts: Counter[str] = Counter()
    for site in ka.plan_replacement(model, "relu", "linear"):
        if not site.kept:
            values = keras.ops.convert_to_numpy(site.activation(z))
            counts.update(name for name, y in known.items() if np.allclose(values, y, atol=1e-5))
    if not counts:
        raise ConfigError(f"model: {model.name} has no sites where another activation could be")
    return counts.most_common(1)[0][0]
