"""An audit of models of a hub: what was planned is what is scored, whatever the hub and the cache do meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from earwitness.audit import procedure, scoring
from earwitness.audit.request import Request
from earwitness.errors import InputError, ModelError
from earwitness.models import revision
from tests.tiny import hearing, musicgen, recording
from tests.tiny_hub import Hub

MODEL, CONTROL = "lab/model", "lab/control"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    hub = Hub(tmp_path / "cache", monkeypatch)
    for number, name in enumerate((MODEL, CONTROL)):
        for version in (2, 1):
            hub.publish(name, hearing(musicgen(tmp_path / f"{name[4:]}-{version}", seed=10 * number + version)))
    return hub


def test_a_hub_that_moves_on_is_not_followed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side, role in enumerate(("suspect", "held_out")):
        for i in range(4):
            recording(tmp_path / role / f"{side}-{i}.wav", 1.6, seed=10 * side + i)
    request = Request(
        models=(MODEL,), suspects=tmp_path / "suspect", held_out=tmp_path / "held_out", n_permutations=99, deals=5,
        control_model=CONTROL, control_saw="neither",
    )  # fmt: skip
    with pytest.raises(ModelError, match="not in the local cache and not downloaded"):
        procedure.prepare(request)
    frozen = tmp_path / "plan.json"
    plan = procedure.freeze(request, frozen, download=True)
    known = procedure.prepare(request)
    planned = [revision(tmp_path / "model-1"), revision(tmp_path / "control-1")]
    assert [*plan.models.values(), *plan.control.values()] == planned

    for name in (MODEL, CONTROL):  # another process fetches what the hub has now
        newer = tmp_path / f"{name[4:]}-2"
        hub.publish(name, newer)
        hub.fetch(name, newer)
    seen, fetched, collect = [], list(hub.fetched), scoring.collect

    def collected(*arguments: Any, **how: Any) -> Any:
        signals = collect(*arguments, **how)
        seen.append(signals.info.revision)
        return signals

    monkeypatch.setattr(scoring, "collect", collected)
    tracks = known.numbered.tracks
    scoring.score_model(known.infos[0], tracks, known.request, seed=0, beside=known.beside)
    assert seen == planned
    assert hub.fetched == fetched

    monkeypatch.setattr(scoring, "collect", lambda *_, **__: pytest.fail("a model was run"))
    with pytest.raises(InputError, match="model") as caught:
        procedure.run(replace(request, frozen=frozen), tmp_path / "report", download=True)
    assert "\n" not in str(caught.value)
