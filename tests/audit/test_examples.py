"""What a page plays: one track of each role by one artist, with the surprise of the very segment that is heard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import earwitness as ew
from earwitness.audit import examples
from earwitness.errors import InputError
from earwitness.types import Track
from tests.tiny import CAPTIONS, musicgen, recording


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """Two artists; only the second has a member and a non-member."""
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    folder = musicgen(tmp_path / "model")
    tracks = [
        Track(f"t{i}", recording(tmp_path / f"{i}.wav", 2.0, seed=i), role, artist=artist, caption=CAPTIONS[0])
        for i, (artist, role) in enumerate([("one", "member"), ("two", "nonmember"), ("two", "member")])
    ]
    return ew.collect(str(folder), tracks, progress=False), tracks


def test_one_of_each_role_with_the_surprise_of_its_own_segment(scored):
    signals, tracks = scored
    heard = examples.of_each_role(signals, tracks)
    assert [(one.track.track_id, one.track.role) for one in heard] == [("t2", "member"), ("t1", "nonmember")]
    stored = {row["segment_id"]: signal for row, signal in signals.items("token")}
    for one in heard:
        logp = stored[one.segment.segment_id].streams["conditional"].logp
        slow = [-np.mean([x for x in frame if np.isfinite(x)]) for frame in logp.T if np.isfinite(frame).any()]
        assert one.surprise[np.isfinite(one.surprise)] == pytest.approx(slow, rel=1e-5)
        assert len(one.surprise) == logp.shape[1]


def test_an_artist_without_both_roles_is_refused(scored):
    signals, tracks = scored
    with pytest.raises(
        InputError, match=r"tracks as member and nonmember, found none called 'twos'; did you mean 'two'"
    ):
        examples.of_each_role(signals, tracks, "twos")
    with pytest.raises(InputError, match="scored tracks as member and nonmember, found some as member only"):
        examples.of_each_role(signals, [tracks[0], replace(tracks[1], track_id="unscored")], "")


def test_where_no_artist_has_both_roles_anybody_is_heard(scored):
    signals, tracks = scored
    heard = examples.of_each_role(signals, tracks[:2])
    assert [one.track.track_id for one in heard] == ["t0", "t1"]
