"""The arguments of activations' constructors, for editors and `help`: those of each parameter are named after it."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

# Static tools complete `**kwargs: Unpack[OfA]`. At run time `signature_of` says the same, of any class.

Initializer = Any  # a number, or what `keras.initializers.get` takes
Regularizer = Any  # what `keras.regularizers.get` takes
Constraint = Any  # what `keras.constraints.get` takes


class LayerArguments(TypedDict, total=False):
    """Of every trainable activation."""

    trainable_parameters: Sequence[str] | None
    name: str | None
    dtype: Any
    trainable: bool
    activity_regularizer: Regularizer


class OfA(LayerArguments, total=False):
    a_initializer: Initializer
    a_regularizer: Regularizer
    a_constraint: Constraint
    a_trainable: bool


class OfB(LayerArguments, total=False):
    b_initializer: Initializer
    b_regularizer: Regularizer
    b_constraint: Constraint
    b_trainable: bool


class OfC(LayerArguments, total=False):
    c_initializer: Initializer
    c_regularizer: Regularizer
    c_constraint: Constraint
    c_trainable: bool


class OfD(LayerArguments, total=False):
    d_initializer: Initializer
    d_regularizer: Regularizer
    d_constraint: Constraint
    d_trainable: bool


class OfBeta(LayerArguments, total=False):
    beta_initializer: Initializer
    beta_regularizer: Regularizer
    beta_constraint: Constraint
    beta_trainable: bool


class OfAlpha(LayerArguments, total=False):
    alpha_initializer: Initializer
    alpha_regularizer: Regularizer
    alpha_constraint: Constraint
    alpha_trainable: bool


class OfGamma(LayerArguments, total=False):
    gamma_initializer: Initializer
    gamma_regularizer: Regularizer
    gamma_constraint: Constraint
    gamma_trainable: bool


class OfS(LayerArguments, total=False):
    s_initializer: Initializer
    s_regularizer: Regularizer
    s_constraint: Constraint
    s_trainable: bool


class OfAlphaP(LayerArguments, total=False):
    alpha_p_initializer: Initializer
    alpha_p_regularizer: Regularizer
    alpha_p_constraint: Constraint
    alpha_p_trainable: bool


class OfAlphaN(LayerArguments, total=False):
    alpha_n_initializer: Initializer
    alpha_n_regularizer: Regularizer
    alpha_n_constraint: Constraint
    alpha_n_trainable: bool


class OfAB(OfA, OfB, total=False):
    pass


class OfABCD(OfAB, OfC, OfD, total=False):
    pass


class OfAlphaPN(OfAlphaP, OfAlphaN, total=False):
    pass


class OfAlphaGammaBeta(OfAlpha, OfGamma, OfBeta, total=False):
    pass


class OfAlphaSGammaBeta(OfAlphaGammaBeta, OfS, total=False):
    pass


def signature_of(cls: Any, base: Any, settings: Mapping[str, Any], is_open: bool) -> inspect.Signature:
    """The arguments of a class's constructor, with what its `**kwargs` stand for.

    Args:
        cls: a class of activations.
        base: the class whose arguments it hands on.
        settings: those of single parameters, and their defaults.
        is_open: whether it takes others beside them.
    """
    known = _arguments(cls)
    rest = next((p for p in known.values() if p.kind is p.VAR_KEYWORD), None)
    if rest is None:
        return inspect.Signature([*known.values()])
    del known[rest.name]
    handed_on = {n: p.replace(kind=p.KEYWORD_ONLY) for n, p in _arguments(base).items() if p.kind is not p.VAR_KEYWORD}
    defaults = dict(settings) | {"trainable_parameters": None, "name": None, "dtype": None, "trainable": True}
    defaults["activity_regularizer"] = None
    handed_on |= {n: inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=d) for n, d in defaults.items()}
    known |= {name: parameter for name, parameter in handed_on.items() if name not in known}
    return inspect.Signature([*known.values(), *([rest] if is_open else [])])


def _arguments(cls: Any) -> dict[str, inspect.Parameter]:
    _, *found = inspect.signature(cls.__init__).parameters.values()  # of a class it is its metaclass's under flax
    return {parameter.name: parameter for parameter in found}
