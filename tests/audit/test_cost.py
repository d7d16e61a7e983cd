"""What a run would take: counted from headers, measured on a few segments, and nothing spent or stored."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from earwitness.audit import Request, cost, gather_tracks, references
from earwitness.audit.cost import _evaluations, evaluations, forecast, tracks_with_roles
from earwitness.audit.display import table
from earwitness.cli import app
from earwitness.errors import InputError, ModelError
from earwitness.models.cards import identity
from earwitness.signals.evaluations import LOSS_REPEATS, ORIGIN
from earwitness.signals.extraction import collect
from earwitness.signals.perturbations import NEIGHBOURS
from earwitness.signals.store import seconds_of
from earwitness.stats.features import DEFAULT_FEATURES
from earwitness.stats.power import reach_of, refusals
from earwitness.types import Track
from earwitness.util import span
from tests.tiny import musicgen, recording


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(musicgen(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> list[Track]:
    root = tmp_path_factory.mktemp("audio")
    return [
        Track(f"t{i}", recording(root / f"t{i}.flac", 1.5 + i % 2, seed=i), ["suspect", "held_out"][i % 2], "A")
        for i in range(4)
    ]


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def test_the_forecast_agrees_with_the_run(folder: str, audio: list[Track], results: Path) -> None:
    found = forecast(folder, audio)
    assert found.probe is not None
    assert found.probe.segments == cost.PROBE_SEGMENTS
    assert found.hours is not None
    assert not results.exists()
    signals = collect(folder, audio)
    assert (found.tracks, found.tracks_missing, found.segments_missing) == (4, 4, len(signals.index))
    seconds = found.segments_missing * found.probe.score_s_per_segment + 4 * found.probe.prepare_s_per_track
    assert found.hours * 3600 == pytest.approx(seconds)
    again = forecast(folder, audio)
    assert (again.tracks_stored, again.tracks_missing, again.segments_missing, again.hours) == (4, 0, 0, None)


def test_part_of_the_tracks_is_stored(folder: str, audio: list[Track]) -> None:
    collect(folder, audio[:1])
    found = forecast(folder, audio, probe=False, max_segments=1)
    assert found.tracks_stored == 0, "another number of segments is another store"
    found = forecast(folder, audio, probe=False)
    assert (found.tracks_stored, found.tracks_missing, found.probe, found.disk_gib) == (1, 3, None, None)
    assert found.audio_hours == pytest.approx(sum(1.5 + i % 2 for i in range(4)) / 3600)


def test_what_cannot_be_used_is_named(folder: str, audio: list[Track], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    bad = [
        replace(audio[0], track_id="gone", path=tmp_path / "gone.wav"),
        replace(audio[0], track_id="text", path=tmp_path / "text.wav"),
        replace(audio[0], track_id="short", path=recording(tmp_path / "short.wav", 0.2)),
    ]
    found = forecast(folder, [*audio, *bad], probe=False)
    reasons = {row["track_id"]: row["reason"] for row in found.exclusions}
    assert set(reasons) == {"gone", "text", "short"}
    assert "0.20 s, shorter than 0.64 s" in reasons["short"]
    assert "not readable" in reasons["text"]
    with pytest.raises(InputError, match="at least one track"):
        forecast(folder, [])
    with pytest.raises(InputError, match="did you mean 'min_k'"):
        forecast(folder, audio, "min_kk")


def _sides(suspects: int, held_out: int) -> list[Track]:
    roles = ["suspect"] * suspects + ["held_out"] * held_out
    return [Track(str(i), Path("x.wav"), role) for i, role in enumerate(roles)]


@pytest.mark.parametrize(
    ("sides", "reason"),
    [
        ((4, 30), "too few tracks: 4 suspect and 30 held-out show only an AUC above 0.9"),
        ((7, 7), "with 80% power; at least 9 of each are needed"),
        ((0, 20), "there is no suspect track to compare with"),
        ((20, 0), "there is no held-out track to compare with"),
        ((20, 20), None),
        ((3000, 3000), None),
        ((0, 0), None),
    ],
)
def test_what_could_not_be_tested_is_refused_before_it_is_scored(sides: tuple[int, int], reason: str | None) -> None:
    found = refusals(_sides(*sides))
    assert found == [] if reason is None else reason in found[0]


def test_a_level_that_is_less_strict_needs_fewer_tracks() -> None:
    assert "at least 9 of each are needed" in refusals(_sides(8, 8))[0]
    assert refusals(_sides(8, 8), alpha=0.05) == []


def test_tracks_count_within_their_artists() -> None:
    """What the test will leave out, or find of little use, is not promised."""
    alone = [replace(track, artist=track.role) for track in _sides(20, 20)]
    assert "no artist is on both sides" in refusals(alone)[0]
    uneven = [replace(track, artist="ab"[i in (8, *range(10, 18))]) for i, track in enumerate(_sides(9, 9))]
    assert "9 suspect and 9 held-out show only an AUC above" in refusals(uneven)[0]
    assert "at least 19 of each" in refusals(uneven)[0]
    guests = [replace(track, track_id=f"guest {track.track_id}", artist="guest") for track in _sides(5, 0)]
    own = [replace(track, artist="own") for track in _sides(12, 12)]
    seen = reach_of([*own, *guests], 0.01)
    assert (seen.n_suspect, seen.n_held_out) == (12, 12)
    assert seen == reach_of(_sides(12, 12), 0.01)


def test_shared_evaluations_are_counted_once(folder: str) -> None:
    info = cost.describe(folder)
    own, shared = evaluations("all", info)
    assert set(own.values()) == {2}
    assert shared == 2
    own, shared = evaluations(["loss", "neighbourhood"], info)
    assert shared == 2 + own["neighbourhood"] - 1
    diffusion = replace(info, family="diffusion", conditions=("text", "null"))
    own, shared = evaluations("all", diffusion)
    assert 0 < shared < sum(own.values())
    assert not {"loss", "min_k"} & set(own)


def test_without_captions_equal_passes_are_counted_once(folder: str, audio: list[Track]) -> None:
    info = cost.describe(folder)
    own, shared = _evaluations("audit", info, captions=False)
    assert (set(own.values()), shared) == ({1}, 1)
    assert _evaluations(["loss", "neighbourhood"], info, captions=False)[1] == 1 + len(NEIGHBOURS)
    diffusion = replace(info, family="diffusion", conditions=("text", "null"))
    both = ["multiple_loss-100/conditional", "multiple_loss-100/null"]
    assert 2 * _evaluations(both, diffusion, captions=False)[1] == evaluations(both, diffusion)[1]
    silent = [replace(track, caption="") for track in audio]
    found = cost.forecast(folder, silent, "audit", probe=False)
    assert found.evaluations_shared == 1
    some = [replace(track, caption="slow" if i else "") for i, track in enumerate(audio)]
    found = cost.forecast(folder, some, "audit", probe=False)
    assert found.evaluations_shared == 2
    assert any(f"1 of {len(some)} tracks have no caption: 1 network calls a segment, not 2" in n for n in found.notes)


def test_an_audit_asks_for_its_features_alone(folder: str) -> None:
    info = cost.describe(folder)
    assert evaluations("audit", info) == evaluations(DEFAULT_FEATURES["token"], info)
    diffusion = replace(info, family="diffusion", conditions=("text", "null"))
    own, shared = evaluations("audit", diffusion)
    assert own == {"denoising_loss": LOSS_REPEATS, "sima": len(ORIGIN)}
    assert shared == cost.evaluations("audit", diffusion)[1] == sum(own.values())


def test_a_hub_model_is_counted_from_its_card(audio: list[Track], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def no_network(name: str, *, allow_download: bool) -> Path:
        asked.append(allow_download)
        raise ModelError("not in the local cache")

    monkeypatch.setattr("earwitness.models.files._from_hub", no_network)
    long = [replace(track, duration_s=95.0) for track in audio]
    found = forecast("facebook/musicgen-small", long)
    assert asked == [False], "nothing is fetched unless it is allowed"
    assert (found.segments_missing, found.probe, found.disk_gib) == (4 * 3, None, None)
    assert found.hours == cost.hours(found.model, found.evaluations_shared, 4 * 3 * 30.0)
    assert ("time on two cores, by the card", span(found.hours * 3600)) in rows_of(found)
    assert "counted from its card, nothing measured; --allow-download" in found.notes[0]
    forecast("facebook/musicgen-small", long, allow_download=True)
    assert asked == [False, True]
    with pytest.raises(ModelError, match="not in the local cache"):
        forecast("someone/unknown", long)


def rows_of(found: cost.Forecast) -> list[tuple[str, str]]:
    """Return a forecast's table as rows of text."""
    columns = [list(column.cells) for column in table(found).columns]
    return [(str(name), str(text)) for name, text in zip(*columns, strict=True)]


def test_hours_by_the_card_are_arithmetic() -> None:
    # calls x 2 x parameters x 50 tokens/s x seconds, over operations a second; in hours
    assert cost.hours("facebook/musicgen-small", 2, 3600) == pytest.approx(2 * 2 * 3e8 * 50 / 1e11)
    assert cost.hours("facebook/musicgen-large", 2, 60, 1.0) == pytest.approx(2 * 2 * 3.3e9 * 50 / 1e9 / 60)
    # a diffusion model sees a tenth of the tokens
    assert cost.hours("cvssp/audioldm-s-full-v2", 7, 3600) == pytest.approx(7 * 2 * 1.8e8 * 5 / 1e11)
    assert cost.hours("nobody/nothing", 2, 3600) is None


def test_the_first_lines_of_an_audit_say_what_scoring_takes(audio: list[Track]) -> None:
    small, _ = identity("facebook/musicgen-small", allow_download=False)
    none = replace(small, name="nobody/nothing")
    tracks = [replace(audio[0], duration_s=1800.0), replace(audio[1], duration_s=1800.0), audio[2]]
    intake = SimpleNamespace(tracks=tracks)  # the last says nothing of its length
    taken = cost.hours(small.name, evaluations("audit", small)[1], 3600)
    assert taken is not None
    for infos, words in (
        ([small, none], f"about {span(taken * 3600)} on two cores"),
        ([small, small], f"about {span(2 * taken * 3600)} on two cores"),
        ([none], "unknown: no card tells the model's size"),
    ):
        assert cost.estimate(intake, infos) == f"3 recordings, 60 minutes of audio; scoring: {words}"  # type: ignore[arg-type]


def test_roles_come_from_the_card_or_are_unknown(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,split\na.wav,a\nb.wav,b\nc.wav,neither\n")
    card = dict.fromkeys(("title", "licence", "citation", "membership"), "x") | {"version": 1}
    card |= {"targets": {"some/model": {"member": ["b"], "nonmember": ["neither"]}}}
    (tmp_path / "m.card.yml").write_text(json.dumps(card))
    tracks = tracks_with_roles(manifest, "some/model", ["b", "neither"])
    assert {(t.split, t.role) for t in tracks} == {("b", "member"), ("neither", "nonmember")}
    assert {t.role for t in tracks_with_roles(manifest, "another", ["b"])} == {""}


def test_lengths_come_from_the_manifest_then_from_the_header(audio: list[Track], tmp_path: Path) -> None:
    assert seconds_of(audio[0]) == 1.5
    assert seconds_of(replace(audio[0], duration_s=7.0)) == 7.0
    assert seconds_of(replace(audio[0], path=tmp_path / "none.wav")) != seconds_of(audio[0])


def test_the_command_prints_a_table_or_json(
    folder: str, audio: list[Track], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["path,role", *(f"{track.path.name},{track.role}" for track in audio)]
    manifest = audio[0].path.parent / "m.csv"
    manifest.write_text("\n".join(lines) + "\n")
    arguments = ["plan", f"--model={folder}", f"--manifest={manifest}"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "at most 10 segments" in shown.output
    assert "too few tracks: 2 suspect and 2 held-out" in " ".join(shown.output.replace("│", " ").split())
    listed = CliRunner().invoke(app, [*arguments, "--json", "--no-probe"])
    found = json.loads(listed.stdout)
    assert (found["tracks"], found["segments_missing"], found["probe"]) == (4, 10, None)
    assert found["refusals"]
    asked = []
    monkeypatch.setattr(cost, "evaluations", lambda attacks, info: asked.append(attacks) or ({}, 0))
    for track in audio:
        (tmp_path / track.role).mkdir(exist_ok=True)
        shutil.copy(track.path, tmp_path / track.role)
    sides = [f"--suspects={tmp_path / 'suspect'}", f"--held-out={tmp_path / 'held_out'}"]
    for sources in (sides, [f"--manifest={manifest}"], [*sides, "--attacks=loss"]):
        answer = CliRunner().invoke(app, ["plan", f"--model={folder}", "--no-probe", *sources])
        assert answer.exit_code == 0, answer.output
    assert asked == ["audit", "all", "loss"]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two more models of the same shape."""
    root = tmp_path_factory.mktemp("more")
    return [str(musicgen(root / "second", seed=1)), str(musicgen(root / "control", seed=2))]


@pytest.fixture
def sides(audio: list[Track], tmp_path: Path) -> list[str]:
    """Two suspects and two held-out in folders, a caption for the first suspect, three recordings of two references."""
    for track in audio:
        (tmp_path / track.role).mkdir(exist_ok=True)
        shutil.copy(track.path, tmp_path / track.role)
    (tmp_path / "captions.csv").write_text("path,caption\nt0.flac,slow music\n")
    for number, artist in enumerate(("B", "C", "C")):
        recording(tmp_path / "references" / artist / f"{number}.flac", 1.5, seed=10 + number)
    return [f"--suspects={tmp_path / 'suspect'}", f"--held-out={tmp_path / 'held_out'}"]


def test_every_model_of_an_audit_is_counted_with_its_control_and_its_references(
    folder: str, others: list[str], sides: list[str], tmp_path: Path
) -> None:
    second, control = others
    models = [f"--model={folder}", f"--model={second}"]
    more = [f"--control-model={control}", f"--reference-artists={tmp_path / 'references'}"]
    more += [f"--captions={tmp_path / 'captions.csv'}"]
    answer = CliRunner().invoke(app, ["plan", *models, *sides, *more, "--no-probe", "--json"])
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert [Path(one["model"]).name for one in found] == [Path(name).name for name in (folder, second, control)]
    assert len({one["revision"] for one in found}) == 3
    assert [one["control"] for one in found] == [False, False, True]
    # Four recordings; three of references and the captioned suspect once more without its caption.
    assert [(one["tracks"], one["references"]) for one in found] == [(8, 4), (8, 4), (4, 0)]
    shared = evaluations("audit", cost.describe(folder))[1]
    assert [one["evaluations_shared"] for one in found] == [shared] * 3
    refused = ["nothing says that" in " ".join(one["refusals"]) for one in found]
    assert refused == [False, False, True]
    assert all("2 suspect and 2 held-out" in one["refusals"][0] for one in found)
    known = CliRunner().invoke(app, ["plan", *models, *sides, *more, "--no-probe", "--json", "--control-saw=neither"])
    assert len(json.loads(known.stdout)[2]["refusals"]) == 1


def test_the_forecast_of_an_audit_is_what_its_scoring_stores(
    folder: str, others: list[str], sides: list[str], tmp_path: Path
) -> None:
    request = Request(
        models=(folder,), suspects=tmp_path / "suspect", held_out=tmp_path / "held_out", control_model=others[1],
        control_saw="neither", captions=tmp_path / "captions.csv", reference_artists=tmp_path / "references",
    )  # fmt: skip
    own, control = cost.forecasts(request, probe=False)
    tracks = gather_tracks(request).tracks
    stored = [collect(name, tracks, "audit").index for name in (folder, others[1])]
    assert control.segments_missing == len(stored[1])
    suspects = [track for track in tracks if track.role == "suspect"]
    references.scored(cost.describe(folder), suspects, references.listed(tmp_path / "references", []).tracks)
    again = cost.forecasts(request, probe=False)
    assert [(one.tracks_stored, one.tracks_missing) for one in again] == [(own.tracks, 0), (control.tracks, 0)]


def test_several_models_are_several_tables_and_a_sum(
    folder: str, others: list[str], audio: list[Track], sides: list[str], tmp_path: Path
) -> None:
    answer = CliRunner().invoke(app, ["plan", f"--model={folder}", f"--control-model={others[0]}", *sides])
    assert answer.exit_code == 0, answer.output
    shown = " ".join(answer.output.replace("│", " ").split())
    assert shown.count("network calls a segment") == 2
    assert "(control model, " in shown
    assert "together: " in shown
    manifest = audio[0].path.parent / "two.csv"
    manifest.write_text("path,role\n" + "".join(f"{track.path.name},{track.role}\n" for track in audio))
    models = [f"--model={folder}", f"--model={others[0]}"]
    plain = CliRunner().invoke(app, ["plan", *models, f"--manifest={manifest}", "--no-probe", "--json"])
    assert [(one["tracks"], one["control"]) for one in json.loads(plain.stdout)] == [(4, False)] * 2
    assert "together" not in CliRunner().invoke(app, ["plan", *models[:1], f"--manifest={manifest}"]).output
    for more in (["--split=a", f"--freeze={tmp_path / 'x'}"], ["--split=a", f"--control-model={others[1]}"]):
        refused = CliRunner().invoke(app, ["plan", *models, f"--manifest={manifest}", *more])
        assert "--split is for a manifest that is scored" in str(refused.exception)
