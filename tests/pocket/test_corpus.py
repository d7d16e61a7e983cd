"""The pocket corpus: notes, sound, lots, manifest, files."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile
import yaml
from typer.testing import CliRunner

from earwitness.data.manifest import read_manifest
from earwitness.pocket import composer, corpus, midi, render, style
from earwitness.pocket.__main__ import app

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "data_manifests" / "pocket.csv"
CARD = ROOT / "data_manifests" / "pocket.card.yml"
LADDER = ROOT / "data_manifests" / "pocket-ladder.csv"
SCORES = ROOT / "data_manifests" / "pocket-midi.csv"


@pytest.fixture(scope="module")
def plan():
    return corpus.plan()


@pytest.fixture(scope="module")
def sounds(plan):
    """Six tracks of each of eight artists, rendered: (artist number, waveform)."""
    artists = corpus.artists()[::4]
    return [(i, render.render(composer.compose(a, n, corpus.SEED), a)) for i, a in enumerate(artists) for n in range(6)]


@cache
def composed(artist, number):
    """The notes of a track, which neither lot nor path can change: written once for the tests that need all tracks."""
    return composer.compose(corpus.artists()[artist], number, corpus.SEED)


@pytest.fixture
def written_once(monkeypatch):
    monkeypatch.setattr(corpus.PlannedTrack, "piece", lambda entry: composed(entry.artist.index, entry.number))


def test_same_seed_same_notes():
    again = style.draw_world(corpus.SEED)
    for index in (0, 13, 31):
        first = composer.compose(corpus.artists()[index], 5, corpus.SEED)
        assert first.sha256 == composer.compose(again[index], 5, corpus.SEED).sha256
        assert first.sha256 != composer.compose(again[index], 6, corpus.SEED).sha256
        assert first.sha256 != composer.compose(again[index], 5, corpus.SEED + 1).sha256


def test_notes_stay_within_bounds(plan):
    for entry in plan[::15]:
        piece = entry.piece()
        notes = piece.notes
        assert notes.dtype == composer.NOTE
        assert len(notes) > 15
        assert (np.diff(notes["onset"]) >= 0).all()
        assert (notes["onset"] >= 0).all()
        assert (notes["duration"] > 0).all()
        assert piece.seconds(notes["onset"] + notes["duration"]).max() <= composer.DURATION_S + 1e-9
        assert piece.seconds(notes["onset"]).max() > 4.5, "music to the end"
        assert ((notes["pitch"] >= 24) & (notes["pitch"] <= 108)).all()
        assert ((notes["velocity"] >= 1) & (notes["velocity"] <= 127)).all()
        programs = {int(p) for p in notes["program"][~notes["drum"]]}
        assert programs == set(entry.artist.instruments)
        assert {int(p) for p in notes["pitch"][notes["drum"]]} <= set(entry.artist.beat)


def test_pitched_notes_belong_to_the_key(plan):
    for entry in plan[::60]:
        notes = entry.piece().notes
        pitched = notes["pitch"][~notes["drum"]] % 12
        scale = style.MODES[entry.artist.mode]
        assert any(set(pitched) <= {(key + step) % 12 for step in scale} for key in entry.artist.keys)


@pytest.mark.usefixtures("written_once")
def test_tracks_of_an_artist_differ_and_are_equally_dense(plan):
    for artist in corpus.artists()[:8]:
        pieces = [e.piece() for e in plan if e.artist is artist]
        assert len({p.sha256 for p in pieces}) == len(pieces)
        counts = np.array([len(p.notes) for p in pieces])
        assert counts.std() < 0.15 * counts.mean()


def test_artists_have_names_and_styles_of_their_own():
    artists = corpus.artists()
    assert len({a.slug for a in artists}) == len(artists) == 32
    assert len({(a.mode, a.lead.name, a.chords.name, a.bass.name, a.drums) for a in artists}) == 32
    for artist in artists:
        assert len(artist.instruments) == 3


def test_split_counts_are_exact(plan):
    counts = Counter((e.artist.name, e.split) for e in plan)
    trained = set(corpus.trained_artists())
    assert len(trained) == 12
    for artist in corpus.artists():
        splits = corpus.TRAINED_SPLITS if artist.name in trained else corpus.NEVER_SPLITS
        assert {s: counts[artist.name, s] for s in splits} == dict.fromkeys(splits, 20)
    assert sum(counts.values()) == len(plan) == 12 * 60 + 20 * 40


def test_formats_are_alike_in_every_artist_and_split(plan):
    counts = Counter((e.artist.name, e.split, e.path.rsplit(".", 1)[1]) for e in plan)
    assert set(counts.values()) == {5}
    assert len(counts) == (12 * 3 + 20 * 2) * 4


@pytest.mark.usefixtures("written_once")
def test_lots_do_not_depend_on_anything_else(plan):
    """Split against wording, position and notes: no more related than chance allows."""
    from scipy.stats import chi2_contingency, kruskal

    trained = [e for e in plan if e.split in corpus.TRAINED_SPLITS]
    template = [0 if " over " in e.caption else 1 if " music " in e.caption else 2 for e in trained]
    table = np.zeros((3, 3))
    for entry, number in zip(trained, template, strict=True):
        table[corpus.TRAINED_SPLITS.index(entry.split), number] += 1
    assert chi2_contingency(table).pvalue > 0.01
    for fact in (lambda e: e.number, lambda e: len(e.piece().notes), lambda e: e.piece().bpm, lambda e: len(e.caption)):
        assert kruskal(*[[fact(e) for e in trained if e.split == s] for s in corpus.TRAINED_SPLITS]).pvalue > 0.01


def test_captions_name_the_style_and_not_the_track(plan):
    for artist in corpus.artists():
        words = {e.caption for e in plan if e.artist is artist}
        assert 2 <= len(words) <= 6
        for caption in words:
            assert artist.lead.name in caption
            assert not any(c.isdigit() for c in caption)
            assert artist.name.lower() not in caption.lower()


@pytest.mark.usefixtures("written_once")
def test_committed_manifest_is_what_the_code_writes():
    assert MANIFEST.read_bytes() == corpus.manifest_csv().encode(), "run: python -m earwitness.pocket manifest"
    assert LADDER.read_bytes() == corpus.manifest_csv(corpus.ladder_plan()).encode()
    assert SCORES.read_bytes() == corpus.manifest_csv(corpus.midi_plan()).encode()


def test_the_ladder_cuts_split_a_and_leaves_the_rest(plan):
    was = {e.track_id: e.split for e in plan}
    ladder = corpus.ladder_plan()
    assert {(was[e.track_id], e.split) for e in ladder if was[e.track_id] != e.split} == {
        ("a", piece) for piece in corpus.LADDER
    }
    sizes = Counter((e.artist.name, e.split) for e in ladder)
    assert all(sizes[name, piece] == size for name in corpus.trained_artists() for piece, size in corpus.LADDER.items())


def test_ladder_card_names_what_each_rung_was_trained_on():
    from earwitness_build.training.train import TARGETS

    for target in TARGETS:
        if target.name not in {"musicgen-b", "musicgen-repeats"}:  # they are no rungs
            tracks = read_manifest(LADDER, f"pocket/{target.name}")
            members = {t.track_id for t in tracks if t.role == "member"}
            assert members == {e.track_id for e in target.entries()}
            assert {t.split for t in tracks if t.role == "nonmember"} == {"neither"}


@pytest.mark.usefixtures("written_once")
def test_manifest_rows_and_note_hashes(plan):
    rows = list(csv.DictReader(io.StringIO(MANIFEST.read_text())))
    assert tuple(rows[0]) == corpus.COLUMNS
    assert len({r["track_id"] for r in rows}) == len({r["path"] for r in rows}) == len(rows)
    assert all(r["sha256"] == "" and r["licence"] == "CC0-1.0" for r in rows)
    for row, entry in list(zip(rows, plan, strict=True))[::100]:
        assert row["notes_sha256"] == entry.piece().sha256
        assert row["path"].startswith(entry.artist.slug + "/")


def test_card_agrees_with_the_corpus(plan):
    card = yaml.safe_load(CARD.read_text())
    assert card["generated_by"] == "earwitness.pocket"
    assert card["version"] == corpus.VERSION
    assert set(card["splits"]) == {e.split for e in plan}
    assert card["counts"]["tracks"] == len(plan)
    for kind in ("musicgen", "audioldm"):
        for twin in "ab":
            assert card["targets"][f"pocket/{kind}-{twin}"] == {"member": [twin], "nonmember": ["neither"]}


@pytest.mark.usefixtures("written_once")
def test_scores_card_agrees_with_the_notes(plan):
    card = yaml.safe_load(SCORES.with_suffix(".card.yml").read_text())
    notes = [len(e.piece().notes) for e in plan]
    assert card["counts"]["tracks"] == len(plan)
    assert card["counts"]["notes"] == sum(notes)
    assert card["counts"]["fewest_notes_in_a_track"] == min(notes)
    assert card["counts"]["most_notes_in_a_track"] == max(notes)
    assert card["splits"] == yaml.safe_load(CARD.read_text())["splits"]


def test_the_scores_are_the_same_lot(plan):
    rows = list(csv.DictReader(io.StringIO(SCORES.read_text())))
    sounds = list(csv.DictReader(io.StringIO(MANIFEST.read_text())))
    for row, sound in zip(rows, sounds, strict=True):
        assert row["path"].endswith(".mid")
        assert 5.5 < float(row["duration_s"]) <= composer.DURATION_S
        for name in ("track_id", "artist", "split", "notes_sha256"):
            assert row[name] == sound[name]


def test_a_midi_file_holds_the_notes(plan):
    """Onsets, pitches, velocities, instruments to the tick; ends, but for a key that is struck again before."""
    for entry in plan[::60]:
        piece = entry.piece()
        read = pretty_midi.PrettyMIDI(io.BytesIO(midi.midi_bytes(piece, entry.artist)))
        assert [t.numerator for t in read.time_signature_changes] == [entry.artist.steps // 4]
        assert read.get_tempo_changes()[1] == pytest.approx([piece.bpm], rel=1e-4)
        scale = midi.RESOLUTION // composer.TICKS_PER_BEAT
        held = {
            (read.time_to_tick(n.start) / scale, n.pitch, n.velocity, track.program, track.is_drum): n.end
            for track in read.instruments
            for n in track.notes
        }
        wanted = {
            (float(n["onset"]), int(n["pitch"]), int(n["velocity"]), int(n["program"]), bool(n["drum"])): n
            for n in piece.notes
        }
        assert held.keys() == wanted.keys()
        ends = np.array([read.time_to_tick(held[key]) / scale for key in wanted])
        exact = np.array([float(n["onset"] + n["duration"]) for n in wanted.values()])
        assert (ends <= exact).all()
        assert (ends == exact).mean() > 0.8


def test_a_key_struck_again_is_let_go_first():
    artist = next(a for a in corpus.artists() if a.chords)
    notes = np.zeros(2, composer.NOTE)
    notes["onset"], notes["duration"], notes["pitch"], notes["velocity"] = (0, 10), (20, 5), 60, 80
    notes["program"] = artist.lead.program
    read = pretty_midi.PrettyMIDI(io.BytesIO(midi.midi_bytes(composer.Piece("x", 0, 120, notes), artist)))
    assert [(read.time_to_tick(n.start), read.time_to_tick(n.end)) for n in read.instruments[0].notes] == [
        (0, 200),
        (200, 300),
    ]


def test_sound_is_clean(sounds):
    for _, wave in sounds:
        assert wave.dtype == np.float32
        assert wave.shape == (96_000,)
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() == pytest.approx(render.PEAK, abs=1e-6)
        level = np.sqrt((wave.reshape(12, -1).astype(float) ** 2).mean(axis=1))
        assert level.min() > 1e-3, "no half second of silence"
        assert abs(wave[-1]) < 1e-3
        assert abs(wave.mean()) < 0.01


@pytest.mark.parametrize(
    ("number", "decibels"),
    [
        (0, [73.03, 72.47, 79.01, 81.47, 62.7, 60.61]),
        (700, [73.43, 73.65, 75.15, 66.35, 61.64, 59.54]),
        (1500, [79.22, 75.18, 72.38, 69.28, 66.81, 63.89]),
    ],
)
def test_the_sound_is_that_of_this_version(plan, number, decibels):
    """Audio on disk is kept as long as the version stays: who changes notes or sound raises `corpus.VERSION`."""
    wave = render.render(plan[number].piece(), plan[number].artist).astype(float)
    bands = np.add.reduceat(np.abs(np.fft.rfft(wave)) ** 2, [0, 1200, 3000, 6000, 12000, 24000])
    assert corpus.VERSION == 1, "then measure the levels below anew"
    assert 10 * np.log10(bands) == pytest.approx(decibels, abs=0.05)


def test_a_tone_has_the_pitch_it_was_given():
    for timbre in style.LEADS:
        wave = render.tone(timbre, 69, 1.0)
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
        at = np.fft.rfftfreq(len(wave), 1 / render.SAMPLE_RATE)
        partials = [spectrum[np.argmin(abs(at - 440 * n))] for n in (0.5, 1, 1.5)]
        assert partials[1] > 20 * partials[0] or timbre.fm is not None
        assert wave[0] == pytest.approx(0.0, abs=1e-6)
        assert abs(wave[-1]) < 0.01


def test_artists_are_told_apart_by_ear(sounds):
    """Nearest centroid on twelve plain spectral numbers, leave one track out; chance is 1/8."""
    features = []
    for _, wave in sounds:
        frames = np.lib.stride_tricks.sliding_window_view(wave, 1024)[::512]
        power = np.abs(np.fft.rfft(frames * np.hanning(1024))) ** 2
        bands = np.add.reduceat(power, [1, 8, 16, 32, 64, 128], axis=1)
        level = np.log(bands + 1e-3)
        features.append(np.concatenate([level.mean(axis=0), np.abs(np.diff(level, axis=0)).mean(axis=0)]))
    x = np.array(features)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    label = np.array([i for i, _ in sounds])
    hits = 0
    for n in range(len(x)):
        rest = np.arange(len(x)) != n
        centres = np.array([x[rest & (label == k)].mean(axis=0) for k in range(8)])
        hits += int(np.argmin(((centres - x[n]) ** 2).sum(axis=1)) == label[n])
    assert hits / len(x) > 0.8


@pytest.fixture
def small_corpus(monkeypatch, plan):
    chosen = [next(e for e in plan if e.path.endswith(kind)) for kind in corpus.FORMATS]
    monkeypatch.setattr(corpus, "plan", lambda: chosen)
    return chosen


def test_ensure_corpus_renders_what_is_missing_and_nothing_else(tmp_path, small_corpus):
    root = corpus.ensure_corpus(tmp_path / "audio")
    for entry in small_corpus:
        audio, rate = soundfile.read(root / entry.path, dtype="float32")
        assert rate == render.SAMPLE_RATE
        assert abs(len(audio) - 96_000) <= 1200
        assert np.isfinite(audio).all()
        assert np.abs(audio).max() < 1.0
    hashes = list(csv.DictReader((root / "sha256.csv").open()))
    assert [h["path"] for h in hashes] == [path for e in small_corpus for path in (e.path, e.midi)]
    kept = (root / small_corpus[0].path).stat().st_mtime_ns
    (root / small_corpus[1].path).unlink()
    (root / small_corpus[0].midi).unlink()
    corpus.ensure_corpus(root)
    assert (root / small_corpus[1].path).is_file()
    assert (root / small_corpus[0].midi).read_bytes() == midi.midi_bytes(
        small_corpus[0].piece(), small_corpus[0].artist
    )
    assert (root / small_corpus[0].path).stat().st_mtime_ns == kept
    assert not [p for p in root.rglob(".*") if p.name != ".lock"], "temporary files left behind"


def test_two_renderings_are_equal_to_the_last_bit(tmp_path, small_corpus):
    """An encoder that draws a number of its own would give every build other hashes, and audits other seeds."""
    texts = [(corpus.ensure_corpus(tmp_path / name) / "sha256.csv").read_text() for name in ("one", "two")]
    assert texts[0] == texts[1]
    assert texts[0].count("\n") == 1 + 2 * len(small_corpus)


def test_an_ogg_stream_changes_its_number_and_nothing_else():
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (50_000, 2))
    written = []
    for number in (b"\x00\x00\x00\x00", b"\xffabc"):
        buffer = io.BytesIO()
        soundfile.write(buffer, sound, 16_000, format="OGG", subtype="VORBIS")
        content = buffer.getvalue()
        pages = [found.start() for found in re.finditer(b"OggS\x00", content)]
        assert len(pages) > 3
        numbered = bytearray(content)
        for start in pages:
            numbered[start + 14 : start + 18] = number
        written.append(corpus.settle_ogg(bytes(numbered)))
        assert (soundfile.read(io.BytesIO(written[-1]))[0] == soundfile.read(io.BytesIO(content))[0]).all()
        for start, end in itertools.pairwise([*pages, len(content)]):
            page = written[-1][start:end]
            assert page[18:22] == content[start + 18 : start + 22]
            assert page[26:] == content[start + 26 : end]
            assert page[22:26] == ogg_checksum(page[:22] + bytes(4) + page[26:])
    assert written[0] == written[1]
    assert corpus.settle_ogg(written[0]) == written[0]


def ogg_checksum(page: bytes) -> bytes:
    """The checksum of RFC 3533 bit by bit: polynomial 0x04c11db7, from nothing, no inversion."""
    held = 0
    for byte in page:
        held ^= byte << 24
        for _ in range(8):
            held = (held << 1) ^ (0x104C11DB7 if held & 0x80000000 else 0)
    return held.to_bytes(4, "little")


def test_ensure_corpus_renders_another_version_anew(tmp_path, small_corpus):
    root = corpus.ensure_corpus(tmp_path / "audio")
    target = root / small_corpus[0].path
    target.write_bytes(b"of another version")
    (root / "version.txt").write_text("older")
    corpus.ensure_corpus(root)
    assert soundfile.info(target).frames == 96_000


def test_a_complete_corpus_is_recognised_and_not_rendered(tmp_path, plan, monkeypatch):
    root = tmp_path / "audio"
    for artist in corpus.artists():
        (root / artist.slug).mkdir(parents=True)
    for entry in plan:
        (root / entry.path).touch()
        (root / entry.midi).touch()
    (root / "version.txt").write_text(str(corpus.VERSION))
    (root / "sha256.csv").touch()
    rendered = []
    monkeypatch.setattr(corpus, "_render_all", lambda *_: rendered.append(1))
    assert corpus.ensure_corpus(root) == root
    assert rendered == []
    (root / plan[-1].midi).unlink()
    corpus.ensure_corpus(root)
    assert rendered == [1]


def test_command_writes_the_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "manifest_csv", lambda entries=None: "track_id\n")
    out = tmp_path / "data" / "pocket.csv"
    done = CliRunner().invoke(app, ["manifest", "--out", str(out)])
    assert done.exit_code == 0
    assert out.read_text() == "track_id\n"
    assert done.stdout.split() == [str(out.with_name(f"pocket{kind}.csv")) for kind in ("", "-ladder", "-midi")]
