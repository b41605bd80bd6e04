"""What the library needs of Keras and Keras keeps to itself: the only module that names it.

All of it is looked up where it is used. Without a name the library is still imported, and its layers compute and train;
what the name was for fails, or does without where that is said below.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any

import keras

BOOKKEEPING = ("_trainable_variables", "_non_trainable_variables", "_layers", "_metrics", "_seed_generators")
TRAINING = {  # attributes of a model that are about its training
    *("compiled", "loss", "stop_training", "steps_per_execution", "unrolled_steps_per_execution"),
    *("_initial_epoch", "_jit_compile", "_run_eagerly", "_jax_state_synced", "_compute_loss_has_training_arg"),
}

_paths: Counter[str] = Counter()


# Layers: how they are built, named and called


def after_build(notify: Callable[[keras.layers.Layer], None]) -> None:
    """Has `notify(layer)` called for every layer that Keras has built, before its state is locked.

    Keras has no hook for this. Without the name a per-channel activation in `activation=` needs `channels=`.
    """
    keras_does = getattr(keras.layers.Layer, "_post_build", None)
    if keras_does is None:
        return

    @wraps(keras_does)
    def post_build(self):
        notify(self)
        return keras_does(self)

    keras.layers.Layer._post_build = post_build


def make_path_unique(variable: keras.Variable) -> None:
    """Gives a variable a path that no other variable of the library has, or had: `act/a`, `act_1/a`, `act_2/a`.

    torch's `parameters()` and JAX's `get_state_tree()` go by paths, and lose one of two that are equal. Counting
    makes them the same in every run of a program, whatever the garbage collector has done.
    """
    scope, _, name = variable.path.rpartition("/")
    path = variable.path
    while path in _paths:
        path = f"{scope}_{_paths[variable.path]}/{name}"
        _paths[variable.path] += 1
    _paths[path] += 1
    variable._path = path


def scope_of(layer: keras.layers.Layer) -> Any:
    """The name scope that Keras opens for a layer's variables; without the name, none."""
    open_scope = getattr(layer, "_open_name_scope", None)
    return nullcontext() if open_scope is None else open_scope()


def calling_layer() -> keras.layers.Layer | None:
    """The layer whose `call` or `build` is under way around that of the layer that asks; without the name, None.

    Keras hands a layer nothing of its caller, but keeps a stack of name scopes that knows it.
    """
    try:
        from keras.src.backend.common import global_state

        scopes = global_state.get_global_attribute("name_scope_stack") or []
        callers: list[Any] = [scope.caller for scope in scopes if scope.caller is not None]
    except (ImportError, AttributeError):
        return None
    own = callers[-1] if callers else None
    return next((caller for caller in reversed(callers) if caller is not own), None)


def output_shape_of(layer: keras.layers.Layer) -> tuple[int | None, ...] | None:
    """The shape of what a layer puts out for the shapes that it was built with; None where it can't be known."""
    shapes = getattr(layer, "_build_shapes_dict", None)
    if not shapes or is_traced(layer):
        return None
    return layer.compute_output_shape(*shapes.values())


def build_shapes(layer: keras.layers.Layer) -> dict[str, Any]:
    """The shapes of the arguments that a layer was built for, by name; empty where it was built for none."""
    return dict(getattr(layer, "_build_shapes_dict", None) or {}) if layer.built else {}


def is_traced(layer: keras.layers.Layer) -> bool:
    """Whether Keras calls a layer to find its output's shape, which builds what is called in it."""
    return type(layer).compute_output_shape is keras.layers.Layer.compute_output_shape


def is_default(method: Callable) -> bool:
    """Whether a method is Keras's own, which a class of layers may define: `build`, `get_config`."""
    return getattr(method, "_is_default", False)


def set_own_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """Says whether a layer is trainable, and nothing of the layers and variables in it, as `trainable` would."""
    layer._trainable = value
    if layer.trainable != value:
        raise RuntimeError(f"This version of Keras keeps elsewhere what is trainable. Received: {layer!r}")


def config_of(layer: keras.layers.Layer) -> dict[str, Any]:
    """The configuration of a layer; of one without a `get_config` of its own, what its constructor was given.

    Keras adds to the latter what a constructor may not take, and then can't load the layer.
    """
    config = layer.get_config()
    if getattr(layer, "_auto_config", None) is None or not is_default(layer.get_config):
        return config
    takes = inspect.signature(type(layer)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        return config
    return {name: value for name, value in config.items() if name in takes}


# Layers: what is in them


def flattened(layer: keras.layers.Layer, itself: bool = True, recursive: bool = True) -> list[keras.layers.Layer]:
    """The layers in a layer; what is public, `Model.layers`, is of models alone and one deep."""
    return list(layer._flatten_layers(include_self=itself, recursive=recursive))


def tracked_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer tracks, in order."""
    return layer._layers


def tracked_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables that a layer itself tracks, and no other."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


@contextmanager
def unlocked(layer: keras.layers.Layer) -> Iterator[Any]:
    """Inside, a layer's attributes can be set though it is built; gives what tracks them."""
    tracker = layer._tracker
    was_locked = tracker.locked
    tracker.unlock()
    try:
        yield tracker
    finally:
        if was_locked:
            tracker.lock()


@contextmanager
def exchanging(owner: keras.layers.Layer, old, new: keras.layers.Layer) -> Iterator[None]:
    """Inside, a layer's attributes can be set though it is built; then it tracks `new` where it tracked `old`.

    What took the place of a function comes first: so the order of variables doesn't depend on what is built when.
    """
    layers = tracked_layers(owner)
    index = next((i for i, layer in enumerate(layers) if layer is old), 0)
    with unlocked(owner) as tracker:
        yield
        tracker.untrack(old)
        layers[:] = [layer for layer in layers if layer is not new]
        layers.insert(index, new)


def exchange_variable(layer: keras.layers.Layer, name: str, old: keras.Variable, new: keras.Variable) -> None:
    """Gives a layer that is built another variable as an attribute."""
    with unlocked(layer):
        layer._untrack_variable(old)
        setattr(layer, name, new)


def track_again(model: keras.layers.Layer) -> None:
    """Has torch see which parameters there are, now that layers share some."""
    for layer in flattened(model):
        if hasattr(layer, "_torch_params"):
            layer._track_variables()


def set_past_keras(layer: Any, name: str, value: Any) -> None:
    """Sets an attribute of a layer as of any object.

    Keras refuses it of a layer that is built, wraps lists, and tracks what it is given: a plain assignment would raise,
    or leave traces of its own.
    """
    object.__setattr__(layer, name, value)


@contextmanager
def stand_ins(attributes: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Inside, attributes of layers are others, `call` among them, as Keras has no hooks: (layer, name, value)."""
    before = []
    try:
        for layer, name, value in attributes:
            before.append((layer, name, name in vars(layer), vars(layer).get(name)))
            set_past_keras(layer, name, value)
        yield
    finally:
        for layer, name, was_there, value in reversed(before):
            if was_there:
                set_past_keras(layer, name, value)
            else:
                object.__delattr__(layer, name)


def become(layer: keras.layers.Layer, kind: type) -> None:
    """Makes a layer one of another class, which differs in methods alone.

    A file names the class that reads it, so that a layer which is saved in another way must be of another class; and a
    new object in its place would not be the one that the user, its model and its code hold.
    """
    set_past_keras(layer, "__class__", kind)


# Graphs of calls


def graph_of(model: Any) -> Any:
    """The graph of a functional or sequential model; None of a sequential one that isn't built yet."""
    return model._functional if isinstance(model, keras.Sequential) else model


def nodes_of(graph: Any) -> list[Any]:
    """The calls in a graph, from the inputs to the outputs."""
    by_depth = graph._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def maker_of(tensor: Any) -> Any:
    """The layer or operation that made a symbolic tensor, if any."""
    return getattr(tensor, "_keras_history", (None,))[0]


def call_of(tensor: Any) -> tuple[Any, Any]:
    """The operation that made a symbolic tensor, and the call in which it did.

    Raises:
        LookupError: where Keras doesn't say it.
    """
    try:
        operation, index, _ = tensor._keras_history
        return operation, operation._inbound_nodes[index]
    except AttributeError as error:
        raise LookupError("this version of Keras keeps its calls elsewhere") from error


def has_mask(tensor: Any) -> bool:
    return getattr(tensor, "_keras_mask", None) is not None


def uncalled(operation: keras.Operation) -> keras.Operation:
    """The same operation, which is no layer, called by nobody."""
    made = object.__new__(type(operation))
    made.__dict__.update(vars(operation) | {"_inbound_nodes": [], "_outbound_nodes": []})
    return made


# Optimizers


def part_for(optimizer: Any, variable: keras.Variable) -> Any:
    """The one of a `MultiOptimizer`'s optimizers that a variable is trained by."""
    return optimizer._optimizer_map(variable)


def takes_decay(optimizer: Any, variable: keras.Variable) -> bool:
    """Whether a variable isn't excluded from an optimizer's weight decay."""
    return optimizer._use_weight_decay(variable)
