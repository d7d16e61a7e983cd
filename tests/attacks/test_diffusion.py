"""Diffusion attacks: what each reads, its sign, and that it says nothing where nothing was run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from earwitness import attacks
from earwitness.signals.diffusion import DenoisingSignals
from earwitness.signals.evaluations import CONDITIONS, GRID, PROBES

SHAPES = {
    "grid": (10,), "repeats": (5,), "origin": (2, 2), "pia": (3, 2), "secmi": (1,), "gradient_mask": (10,),
    "noise_optimisation": (2,), "pfami": (7, 10), "rediffuse": (1,), "adversarial": (1,), "gradient_norms": (20,),
}  # fmt: skip
SPECS = [s for name in attacks.REGISTRY for s in attacks.REGISTRY[name].specs(0) if s.attack.family == "diffusion"]


def make(seed: int = 0, **scale: float) -> DenoisingSignals:
    """Random positive signals for every pass; ``conditional=0.5`` halves that condition's."""
    rng = np.random.default_rng(seed)
    drawn = {f"{p}/{c}": 1 + rng.random(SHAPES[p]) for p in PROBES for c in CONDITIONS}
    return DenoisingSignals({k: v * scale.get(k.partition("/")[2], 1.0) for k, v in drawn.items()})


def score(name: str, signals: DenoisingSignals) -> float:
    (spec,) = attacks.resolve(name)
    return attacks.bind(spec, {})(signals)


def test_every_probe_has_a_reader() -> None:
    read = {p.partition("/")[0] for s in SPECS for p in s.passes}
    assert read == set(PROBES) == set(SHAPES)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.id)
def test_contract(spec: Any) -> None:
    assert math.isfinite(attacks.bind(spec, {})(make()))
    assert math.isnan(attacks.bind(spec, {})(DenoisingSignals({}))), "nothing was run: the attack cannot say"
    full = make()
    for name in spec.passes:  # and it reads no more than it declares
        assert math.isnan(attacks.bind(spec, {})(DenoisingSignals({k: v for k, v in full.values.items() if k != name})))
    only = DenoisingSignals({k: v for k, v in full.values.items() if k in spec.passes})
    assert attacks.bind(spec, {})(only) == attacks.bind(spec, {})(full)


@pytest.mark.parametrize(
    "spec",
    [s for s in SPECS if s.attack.name not in {"pfami", "pfami_slower", "pfami_tilt", "clid_audio"}],
    ids=lambda s: s.id,
)
def test_orientation(spec: Any) -> None:
    """Smaller errors under the attack's condition are more member-like; for CLiD, under the full caption."""
    better = "conditional" if spec.attack.name == "clid" else spec.stream
    low, high = attacks.bind(spec, {})(make()), attacks.bind(spec, {})(make(**{better: 0.5}))
    assert (high < low) if spec.attack.name == "adversarial_budget" else (high > low)


def test_formulas() -> None:
    signals = make(3)
    v = signals.values
    assert score("denoising_loss/null", signals) == pytest.approx(-v["repeats/null"].mean())
    for i, t in enumerate(GRID):
        assert score(f"multiple_loss-{t}/conditional", signals) == -v["grid/conditional"][i]
        assert score(f"gradient_mask-{t}/audio", signals) == -v["gradient_mask/audio"][i]
    for row, name in enumerate(("pia", "pian", "pian_cdi")):
        assert score(f"{name}-5/conditional", signals) == -v["pia/conditional"][row, 0]
        assert score(f"{name}-4/conditional", signals) == -v["pia/conditional"][row, 1]
    for row, t in enumerate((0, 100)):
        assert score(f"sima-{t}-2/null", signals) == -v["origin/null"][row, 0]
        assert score(f"sima-{t}-4/null", signals) == -v["origin/null"][row, 1]
    assert score("noise_optimisation/conditional", signals) == -v["noise_optimisation/conditional"][0]
    assert score("noise_move/conditional", signals) == -v["noise_optimisation/conditional"][1]
    squares = np.square(v["pfami/conditional"])
    rise = [(squares[s, t] - squares[0, t]) / squares[0, t] for s in range(1, 7) for t in range(10)]
    assert score("pfami/conditional", signals) == pytest.approx(np.mean(rise))
    assert score("pfami_slower/conditional", signals) == pytest.approx(np.mean(rise[:30]))
    assert score("pfami_tilt/conditional", signals) == pytest.approx(np.mean(rise[30:]))
    for stream in ("null", "half", "other"):
        expected = np.mean(v[f"grid/{stream}"] ** 2 - v["grid/conditional"] ** 2)
        assert score(f"clid/{stream}", signals) == pytest.approx(expected)
    for stream in ("null", "conditional"):
        assert score(f"clid_audio/{stream}", signals) == pytest.approx(
            np.mean(v[f"grid/{stream}"] ** 2 - v["grid/audio"] ** 2)
        )
    norm = np.linalg.norm(v["gradient_norms/conditional"])
    assert score("gradient_norm_gsa/conditional", signals) == pytest.approx(-math.log(norm))


def test_all_means_the_cheap_passes() -> None:
    from earwitness.signals.evaluations import standard

    found = attacks.resolve("all", passes=standard(("text", "null")))
    assert {s.attack.family for s in found} == {"diffusion"}
    assert {s.stream for s in found} == {"conditional", "null"}
    names = {s.attack.name for s in found}
    assert names == {"denoising_loss", "multiple_loss", "pia", "pian", "pian_cdi", "sima", "clid"}
    assert not any(s.attack.family == "diffusion" for s in attacks.resolve("all"))
    assert [s.id for s in attacks.resolve("pia-5", passes=standard(("text", "null")))] == ["pia-5/conditional"]
