"""The private names of TensorFlow's that this library needs: what a trace is for is said nowhere else."""

import tensorflow as tf
from tensorflow.python.eager.forwardprop_util import pack_tangents
from tensorflow.python.eager.record import should_record_backprop
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext


def has_tangent(tensors) -> bool:
    """Whether a derivative goes forward with a tensor, which only TensorFlow's own operations hand on."""
    return bool(pack_tangents(tensors).tangents)


def is_recorded(tensors) -> bool:
    """Whether a gradient tape writes down what is done with a tensor."""
    return should_record_backprop(tensors)


def is_for_xla() -> bool:
    """Whether a function is traced that XLA compiles."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
