"""tanh and the logistic function for `torch.compile` on CPU, in arithmetic that it makes vector instructions of.

It calls a library for them else, which takes longer than all the rest of a formula. Both are exact to a relative
1e-6 in float32, far out too.
"""

import math

import torch

# tanh(x) = x P(x^2) / Q(x^2) for |x| <= 7.9, where it has reached 1 - 3e-7: a rational minimax fit (Lawson's
# iteration) with a relative error of 6e-9.
TANH_P = (0.999999994, 0.134506212, 0.00357899265, 2.20232525e-05, 1.54279764e-08)
TANH_Q = (1.0, 0.467839492, 0.0261922405, 0.000342365145, 8.59878306e-07)

# exp(r) for |r| <= ln(2) / 2: a polynomial fitted likewise, with a relative error of 2e-9.
EXP = (1.0, 1.00000003, 0.499999942, 0.166664312, 0.0416680026, 0.00837416338, 0.00138436441)
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # ln 2 in two parts, of which the first times n is exact


def tanh(x):
    near = x.clamp(-7.9, 7.9)
    square = near * near
    found = near * _polynomial(square, TANH_P) / _polynomial(square, TANH_Q)
    return torch.where(x.abs() >= 9, x.sign(), found)  # as the slope 1 - tanh^2 is 0 there, however large x


def sigmoid(x):
    return 1 / (1 + _exp(-x))


def _exp(x):
    """2^n exp(r) with n an integer and r the rest; the n of a float32 is written into its bits, from 23 on."""
    x = x.clamp(-87, 89)  # beyond 88.4 n is 128, which makes infinity
    n = torch.round(x * (1 / math.log(2)))
    rest = (x - n * LN2_HIGH) - n * LN2_LOW
    return _polynomial(rest, EXP) * ((n.to(torch.int32) + 127) << 23).view(torch.float32)


def _polynomial(x, coefficients):
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


REPLACED = {torch.ops.aten.tanh.default: tanh, torch.ops.aten.sigmoid.default: sigmoid}
