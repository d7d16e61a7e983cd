"""Attacks on token signals: published golden values, slow twins, and what every attack must satisfy."""

import math

import numpy as np
import pytest

from earwitness import attacks
from earwitness.extractors.token import STREAMS, TokenSignals

TARGETS = [[0, 1, 0, 3, 2, 0]]
LOGITS = [
    [
        [2, 0, -1, 0.5],
        [0.2, 1.5, 0.1, -0.4],
        [-0.3, 0.4, 2.2, 0],
        [1, 0.9, -0.2, 0.3],
        [0, -1, 0.5, 1.2],
        [0.7, 0.1, 0.6, -0.8],
    ]
]
NULL = [
    [
        [1, 0.2, -0.5, 0.4],
        [0.3, 0.6, 0, -0.1],
        [0.1, 0.2, 0.9, 0],
        [0.6, 0.7, 0, 0.2],
        [0.1, -0.4, 0.3, 0.5],
        [0.4, 0.2, 0.3, -0.3],
    ]
]
GOLDEN = {  # attack -> (conditional, null, contrast), oriented: higher is more member-like
    "loss": (-1.280957, -1.252021, -1.267798),
    "min_k-0.5": (-1.948911, -1.506644, -1.686806),
    "min_k++-0.5": (-1.137060, -0.514555, -0.721458),
    "min_k++_var-0.5": (-1.734795, -1.583843, -1.494886),
}


@pytest.fixture(scope="module")
def golden():
    return TokenSignals.from_logits(LOGITS, TARGETS, np.ones((1, 6), bool), NULL)


def run(signals, name):
    (spec,) = attacks.resolve(name)
    return spec.bind({})(signals)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("stream", STREAMS)
def test_golden_values(golden, name, stream):
    expected = GOLDEN[name][STREAMS.index(stream)]
    assert run(golden, f"{name}/{stream}") == pytest.approx(expected, abs=1e-6)
    assert run(golden, f"{name}/{stream}/q0") == pytest.approx(expected, abs=1e-6)


def test_golden_log_probabilities(golden):
    expected = [-0.342350, -0.512043, -2.806151, -1.694221, -1.346361, -0.984614]
    assert golden.series("logp", "conditional") == pytest.approx(expected, abs=1e-6)


def test_equal_passes_give_exactly_log_v():
    signals = TokenSignals.from_logits(LOGITS, TARGETS, np.ones((1, 6), bool), LOGITS)
    assert (signals.streams["contrast"].logp == np.float32(-math.log(4))).all()
    assert run(signals, "loss/contrast") == pytest.approx(-1.386294, abs=1e-6)
