"""MIDI to FIGARO's tokens: the original's own output, closed forms, properties of random pieces, bad files."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from itertools import chain
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earwitness.errors import AudioError
from earwitness.symbolic import figaro_tokens, midi, neighbours
from earwitness.symbolic import figaro_vocabulary as v
from earwitness.symbolic.chords import match
from earwitness.symbolic.windows import FigaroScheme, SymbolicSpec, segments
from tests import golden_midi, tiny_midi

SCHEME = FigaroScheme()


def names(text: str) -> list[str]:
    """Undo the layout of a golden sequence."""
    return [name.strip() for line in text.strip().splitlines() for name in line.split("|")]


def runs(text: str) -> list[int]:
    """Undo run lengths: ``0 1x3`` is 0 1 1 1."""
    pairs = (part.partition("x") for part in text.split())
    return list(chain.from_iterable([int(value)] * int(count or 1) for value, _, count in pairs))


def token_names(score: figaro_tokens.Score) -> list[str]:
    """Return the names of a piece's tokens, without ``<bos>`` and ``<eos>``."""
    return [name for rows in figaro_tokens._bars(score) for name, *_ in rows]


@pytest.fixture(params="AB")
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[figaro_tokens.Score, str]:
    write = tiny_midi.golden_a if request.param == "A" else tiny_midi.golden_b
    return SCHEME.read(write(tmp_path / "golden.mid")), request.param


def test_the_golden_pieces_give_exactly_the_originals_tokens(golden) -> None:
    piece, letter = golden
    held = {name: getattr(golden_midi, f"{name}_{letter}") for name in ("TOKENS", "IDS", "BARS", "POSITIONS")}
    found = figaro_tokens.tokens_of(piece)
    assert token_names(piece) == names(held["TOKENS"])
    assert found.ids[1:-1].tolist() == [int(i) for i in held["IDS"].split()]
    assert found.ids[[0, -1]].tolist() == [v.BEGIN, v.END]
    assert found.bars.tolist() == runs(held["BARS"])
    assert found.positions.tolist() == runs(held["POSITIONS"])


def test_the_golden_pieces_give_exactly_the_originals_description(golden) -> None:
    piece, letter = golden
    wanted = names(getattr(golden_midi, f"DESCRIPTION_{letter}"))
    ids, bars = figaro_tokens.description_of(piece)
    assert figaro_tokens.description_names(piece) == wanted
    assert ids.tolist() == [int(i) for i in getattr(golden_midi, f"DESCRIPTION_IDS_{letter}").split()]
    assert bars.tolist() == np.cumsum([name.startswith("Bar_") for name in wanted]).tolist()


def test_the_golden_pieces_have_the_originals_bars(tmp_path: Path) -> None:
    found = [SCHEME.read(write(tmp_path / "x.mid")).bars for write in (tiny_midi.golden_a, tiny_midi.golden_b)]
    assert [(b.start, b.end, len(b.items)) for b in found[0]] == [(0, 1920, 15), (1920, 3360, 10)]
    assert [(b.start, b.end, len(b.items)) for b in found[1]] == [
        (660, 1320, 7), (1320, 1980, 0), (1980, 2530, 4), (2530, 3080, 3), (3080, 3100, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "groups"),
    [
        ("instruments", {"Instrument"}),
        ("chords", {"Chord"}),
        ("meta", {"Time Signature", "Note Density", "Mean Velocity", "Mean Pitch", "Mean Duration"}),
    ],
)
def test_variants_drop_their_part_of_the_description_alone(golden, option, groups) -> None:
    piece, _ = golden
    kept = [name for name in figaro_tokens.description_names(piece) if v.group_of(name) not in groups]
    ids, bars = figaro_tokens.description_of(piece, frozenset({option}))
    assert ids.tolist() == [v.DESCRIPTION[name] for name in kept]
    assert bars[-1] == len(piece.bars)
    assert len(kept) < len(figaro_tokens.description_names(piece))


# --- the vocabularies -------------------------------------------------------------------------------------------------


def test_every_group_of_both_vocabularies_lies_where_the_checkpoints_have_it() -> None:
    assert (len(v.TOKENS), len(v.DESCRIPTION)) == (1357, 965)
    ends = {
        "Time Signature": (5, 94), "Tempo": (95, 127), "Instrument": (128, 256), "Pitch": (257, 384),
        "Pitch_drum": (385, 512), "Velocity": (513, 545), "Duration": (546, 603), "Bar": (604, 1115),
        "Position": (1116, 1259), "Chord": (1260, 1356),
    }  # fmt: skip
    described = {
        "Time Signature": (5, 94), "Instrument": (95, 223), "Chord": (224, 320), "Note Density": (321, 353),
        "Mean Velocity": (354, 386), "Mean Pitch": (387, 419), "Mean Duration": (420, 452), "Bar": (453, 964),
    }  # fmt: skip
    for ids, wanted in ((v.TOKENS, ends), (v.DESCRIPTION, described)):
        for group, (first, last) in wanted.items():
            members = [i for name, i in ids.items() if v.group_of(name) == group]
            assert members == list(range(first, last + 1)), group
        assert list(ids.values()) == list(range(len(ids)))


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("Time Signature_3/4", 5 + 6 + 2),
        ("Time Signature_48/16", 5 + 42 + 47),
        ("Instrument_Acoustic Grand Piano", 128),
        ("Instrument_Blown bottle", 128 + 76),
        ("Instrument_drum", 256),
        ("Chord_D#:min7", 1260 + 8 * 3 + 6),
        ("Chord_N:N", 1356),
    ],
)
def test_ids_follow_their_closed_forms(name: str, token: int) -> None:
    assert v.TOKENS[name] == token


def test_no_name_holds_an_underscore_that_would_change_its_group() -> None:
    assert not [name for name in v.INSTRUMENTS if "_" in name]


@pytest.mark.parametrize(
    ("value", "bins", "index"),
    [
        (110, v.VELOCITY, 27),  # 108 and 112 are equally near: the lower
        (120, v.TEMPO, 16),
        (21, v.DURATION, 15),  # stands twice
        (22.5, v.DURATION, 15),
        (10_000, v.DURATION, 57),
        (float("nan"), v.MEAN_PITCH, 0),
        (0.375 * 1.5, v.DENSITY, 1),
    ],
)
def test_the_nearest_bin_is_the_lower_of_two_equally_near(value: float, bins: tuple[float, ...], index: int) -> None:
    assert v.nearest_bin(value, bins) == index


def test_bins_have_their_published_values() -> None:
    assert [len(b) for b in (v.VELOCITY, v.TEMPO, v.DURATION, v.DENSITY, v.MEAN_DURATION)] == [33, 33, 58, 33, 33]
    assert v.TEMPO[:5] == (0, 7, 15, 22, 30)
    assert (v.TEMPO[-1], v.DURATION[-1], v.MEAN_DURATION[-1], v.DENSITY[-1]) == (240, 768, 128, 12)


@pytest.mark.parametrize(
    ("classes", "wanted"),
    [
        ({0, 4, 7}, ("C", "maj", "C", 10)),
        ({0, 4, 7, 9}, ("A", "min7", "C", 10)),
        ({0, 4, 8}, ("C", "aug", "C", 0)),
        ({0, 3, 6, 9}, ("C", "dim", "C", 10)),
        ({0, 7}, ("C", "None", "C", -100)),
        ({0, 3, 4}, ("C", "None", "C", -100)),
        ({2, 5, 7, 11}, ("G", "dom7", "D", 10)),
        ({0, 4, 5, 9}, ("F", "maj7", "C", 10)),
        (set(), ("N", "N", "N", 10)),
    ],
)
def test_chords_have_their_published_names_and_scores(classes: set[int], wanted: tuple[str, str, str, int]) -> None:
    assert match(frozenset(classes)) == wanted


def test_a_whole_tempo_can_lose_one_to_floating_point(tmp_path: Path) -> None:
    path = tiny_midi.write(tmp_path / "x.mid", [(0, [(0, 384, 60, 64)])], resolution=384, tempi=((0, 300_000),))
    tempi = [item.value for bar in SCHEME.read(path).bars for item in bar.of(figaro_tokens.TEMPO)]
    assert tempi == [199]  # 200 quarters per minute, through pretty_midi's own arithmetic


# --- random pieces ----------------------------------------------------------------------------------------------------

NOTES = st.lists(
    st.tuples(st.integers(0, 6000), st.integers(1, 1500), st.integers(1, 126), st.integers(1, 127)),
    min_size=1,
    max_size=25,
)
PIECES = st.fixed_dictionaries(
    {
        "tracks": st.lists(st.tuples(st.one_of(st.integers(0, 127), st.just("drum")), NOTES), min_size=1, max_size=4),
        "resolution": st.sampled_from([96, 220, 384, 480]),
        "metres": st.lists(
            st.tuples(st.integers(0, 4000), st.integers(1, 9), st.sampled_from([2, 4, 8])), min_size=1, max_size=3
        ),
        "tempi": st.lists(st.tuples(st.integers(0, 3000), st.integers(200_000, 1_500_000)), max_size=3),
        "pedals": st.lists(st.tuples(st.integers(0, 6000), st.sampled_from([0, 127])), max_size=6),
    }
)
random_pieces = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def drawn(path: Path, given_: dict) -> figaro_tokens.Score:
    """Write a drawn piece and read it again."""
    tracks = [(p, [(on, on + length, *rest) for on, length, *rest in notes]) for p, notes in given_["tracks"]]
    others = {name: given_[name] for name in ("resolution", "metres", "tempi")}
    return SCHEME.read(tiny_midi.write(path, tracks, pedals={0: given_["pedals"]}, **others))


@random_pieces
@given(PIECES)
def test_every_note_becomes_five_tokens_in_order(tmp_path: Path, piece: dict) -> None:
    read = drawn(tmp_path / "x.mid", piece)
    found = figaro_tokens.tokens_of(read)
    held = [item.value for bar in read.bars for item in bar.of(figaro_tokens.NOTES)]
    assert found.notes[found.groups == 2].tolist() == held
    note_rows = found.groups[found.notes >= 0]
    assert note_rows[note_rows >= 0].tolist() == [0, 1, 2, 3, 4] * len(held) or v.UNKNOWN in found.ids
    assert Counter(found.bars.tolist())[0] == 2
    assert (found.ids < len(v.TOKENS)).all()
    # A bar starts after the one before it ends, and every item lies inside its own.
    for bar in read.bars:
        assert all(bar.start <= item.start < bar.end for item in bar.items)
    for before, after in zip(read.bars, read.bars[1:], strict=False):
        assert before.end == after.start


@random_pieces
@given(PIECES)
def test_neighbours_stand_token_beside_token(tmp_path: Path, piece: dict) -> None:
    read = drawn(tmp_path / "x.mid", piece)
    own = figaro_tokens.tokens_of(read)
    changes = {"transposition": {2}, "dynamics": {3}, "tempo": set()}
    for kind, changed in changes.items():
        for other in SCHEME.neighbours(kind, read):
            found = figaro_tokens.tokens_of(other)
            assert found.groups.tolist() == own.groups.tolist()
            differ = set(own.groups[found.ids != own.ids].tolist()) - {figaro_tokens.STRUCTURE}
            assert differ <= changed


def test_a_transposed_piece_is_the_piece_written_higher(tmp_path: Path) -> None:
    chord = [(beat * 480, beat * 480 + 480, pitch, 90) for beat in range(6) for pitch in (60, 64, 67)]
    written = [[(on, off, pitch + by, 90) for on, off, pitch, _ in chord] for by in (0, 1)]
    own, higher = (SCHEME.read(tiny_midi.write(tmp_path / f"{i}.mid", [(0, n)])) for i, n in enumerate(written))
    moved = neighbours.transposed(own, by=1)
    assert token_names(moved) == token_names(higher) != token_names(own)
    assert figaro_tokens.description_names(moved) == figaro_tokens.description_names(higher)


# --- windows ----------------------------------------------------------------------------------------------------------


def long_piece(path: Path, notes: int = 150) -> Path:
    """Write a piece of so many eighth notes."""
    return tiny_midi.write(path, [(0, [(240 * i, 240 * i + 200, 48 + 7 * i % 24, 80) for i in range(notes)])])


def test_segments_are_the_whole_windows_in_order(tmp_path: Path) -> None:
    path = long_piece(tmp_path / "x.mid")
    read = SCHEME.read(path)
    whole = figaro_tokens.tokens_of(read)
    cuts = list(segments(path, SymbolicSpec(SCHEME)))
    assert len(cuts) == len(whole) // 257 >= 2
    for k, cut in enumerate(cuts):
        window = cut.context
        assert cut.audio[0].tolist() == window.tokens.tolist() == whole.ids[257 * k : 257 * k + 257].tolist()
        assert window.groups.tolist() == whole.groups[257 * k + 1 : 257 * k + 257].tolist()
        assert window.inputs["bars"].tolist() == whole.bars[257 * k : 257 * k + 256].tolist()
        assert window.inputs["positions"].tolist() == whole.positions[257 * k : 257 * k + 256].tolist()
    assert len({cut.segment_id for cut in cuts}) == len(cuts)
    assert cuts[0].start_s == 0 < cuts[1].start_s
    # The first windows are taken, never drawn: positions in the piece match between pieces.
    assert [c.segment_id for c in segments(path, SymbolicSpec(SCHEME, seed=5, max_segments=2))] == [
        c.segment_id for c in cuts[:2]
    ]


def test_descriptions_start_at_the_windows_bar_and_are_padded_to_it(tmp_path: Path) -> None:
    read = SCHEME.read(long_piece(tmp_path / "x.mid"))
    ids, bars = figaro_tokens.description_of(read)
    windows = SCHEME.windows(read)
    first, second = (w.inputs["description"] for w in windows[:2])
    assert first[: len(ids) + 2].tolist() == [v.BEGIN, *ids, v.END]
    assert not first[len(ids) + 2 :].any()
    assert len(first) == 256
    bar = int(figaro_tokens.tokens_of(read).bars[257])
    kept = ids[bars >= bar]
    assert second[: len(kept) + 1].tolist() == [*kept, v.END]
    assert v.DESCRIPTION[f"Bar_{bar}"] == second[0]
    assert windows[1].inputs["description_bars"][: len(kept) + 1].tolist() == [*bars[bars >= bar], 0]
    # Latents are those of every bar of the piece, whatever the window.
    assert len(windows[1].bar_tokens) == len(read.bars)
    assert windows[0].bar_tokens[0][:2].tolist() == [v.BEGIN, v.TOKENS["Bar_1"]]
    assert {int(bar[-1]) for bar in windows[0].bar_tokens} == {v.END}


def test_the_last_window_of_training_ends_with_the_piece(tmp_path: Path) -> None:
    read = SCHEME.read(long_piece(tmp_path / "x.mid"))
    whole = figaro_tokens.tokens_of(read)
    windows = SCHEME.training_windows(read)
    assert [w.start for w in windows] == [*range(0, 257 * (len(windows) - 1), 257), len(whole) - 257]
    assert windows[-1].tokens[-1] == v.END
    short = SCHEME.read(long_piece(tmp_path / "y.mid", notes=5))
    (only,) = SCHEME.training_windows(short)
    held = len(figaro_tokens.tokens_of(short))
    assert not only.tokens[held:].any()
    assert (only.groups[held - 1 :] == -1).all()
    with pytest.raises(AudioError, match=r"y\.mid: shorter than one window"):
        list(segments(tmp_path / "y.mid", SymbolicSpec(SCHEME)))


# --- bad files --------------------------------------------------------------------------------------------------------


def chunk(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4) + body


def raw(*tracks: bytes, kind: int = 1, resolution: int = 480, count: int | None = None) -> bytes:
    head = b"".join(n.to_bytes(2) for n in (kind, len(tracks) if count is None else count, resolution))
    return chunk(b"MThd", head) + b"".join(chunk(b"MTrk", t) for t in tracks)


METRE = bytes.fromhex("00ff580404021808")
NOTE = bytes.fromhex("00903c40 8360803c00")
END = bytes.fromhex("00ff2f00")
REST = bytes.fromhex("83ffff7f903c400a803c00")  # two million ticks and a note
HOUR = bytes.fromhex("87e860903c4087e8603c00")  # a rest and a note of 128,096 ticks each, by running status

BAD = {
    "empty file": (b"", "does not begin with MThd"),
    "other format": (b"RIFF....WAVEfmt ", "does not begin with MThd"),
    "header cut": (b"MThd\0\0\0\6\0\1", "ends in the middle"),
    "short header": (b"MThd\0\0\0\4\0\1\0\1", "header holds 4 bytes"),
    "track cut": (raw(METRE + NOTE + END)[:-3], "cut short"),
    "no track": (raw(), "0 tracks"),
    "thousands of tracks": (raw(*[END] * 3000), "3000 tracks; expected 1 to 512"),
    "type 2": (raw(METRE + NOTE + END, kind=2), "type 2, several pieces in one file"),
    "unknown type": (raw(METRE + NOTE + END, kind=7), "unknown type 7"),
    "frames of film": (raw(METRE + NOTE + END, resolution=0xE728), "SMPTE"),
    "no resolution": (raw(METRE + NOTE + END, resolution=0), "SMPTE"),
    "no notes": (raw(METRE + END), "holds no notes"),
    "no metre": (raw(NOTE + END), "no time-signature event"),
    "hanging notes alone": (raw(METRE + NOTE[:4] + END), "none of its 1 notes ever ends"),
    "status missing": (raw(METRE + bytes.fromhex("003c40") + END), "without a status byte"),
    "status of no file": (raw(METRE + bytes.fromhex("00f801") + END), "status byte 0xf8"),
    "data byte": (raw(METRE + bytes.fromhex("00903cff") + END), "data byte above 127"),
    "endless number": (raw(METRE + b"\xff" * 200_000), "longer than four bytes"),
    "text beyond its track": (raw(METRE + bytes.fromhex("00ff01ffff7f") + END), "ends in the middle"),
    "bad key": (raw(METRE + bytes.fromhex("00ff59027f05") + NOTE + END), "not readable as MIDI"),
    "10 hours": (raw(METRE + bytes.fromhex("00ff5103ffffff") + NOTE + HOUR * 4 + END), "at most 60 min"),
    "too many ticks": (raw(METRE + NOTE + bytes.fromhex("ffffff7f803c00") + END), "longer than 9000000 ticks"),
    "endless beats": (raw(METRE + bytes.fromhex("00ff5103000001") + NOTE + REST + END, resolution=1), "200000 beats"),
    "tiny beats": (raw(bytes.fromhex("00ff5804ff0d1808") + NOTE + REST + END), "200000 beats"),
    "tempo of no length": (raw(METRE + bytes.fromhex("00ff5103000000") + NOTE + END), "ZeroDivisionError"),
    "metre of no beats": (raw(bytes.fromhex("00ff580400021808") + NOTE + END), "not readable as MIDI"),
    "metre of no length": (raw(bytes.fromhex("00ff580401071808") + NOTE + END), "bars of no length"),
    "many bars": (
        raw(bytes.fromhex("00ff580401041808") + NOTE + bytes.fromhex("8efe00903c408360803c00") + END),
        "bars; training",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    content, reason = BAD[case]
    path = tmp_path / "bad.mid"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=re.escape(reason)) as caught:
        SCHEME.read(path)
    assert str(caught.value).startswith("bad.mid: ")
    assert "\n" not in str(caught.value)


def test_a_missing_and_a_huge_file_are_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="expected a MIDI file, found none"):
        midi.read(tmp_path / "none.mid")
    (tmp_path / "huge.mid").write_bytes(b"\0" * (midi.MAX_BYTES + 1))
    with pytest.raises(AudioError, match="is not read"):
        midi.read(tmp_path / "huge.mid")
    events = METRE + bytes.fromhex("00903c40") + bytes.fromhex("003c00") * (midi.MAX_EVENTS + 1)
    (tmp_path / "events.mid").write_bytes(raw(events))
    with pytest.raises(AudioError, match="more than 400000 events"):
        midi.read(tmp_path / "events.mid")


ODD = {
    "drums alone": lambda p: tiny_midi.write(p, [("drum", [(480 * i, 480 * i + 60, 36, 100) for i in range(8)])]),
    "no tempo": lambda p: tiny_midi.write(p, [(0, [(0, 480, 60, 64)])], tempi=()),
    "karaoke": lambda p: tiny_midi.write(p, [(0, [(0, 480, 60, 64)])], texts=[(240 * i, "la") for i in range(40)]),
    "two metres in one bar": lambda p: tiny_midi.write(
        p,
        [(0, [(0, 480, 60, 64), (960, 1440, 62, 64), (2400, 2880, 64, 64)])],
        metres=((0, 4, 4), (480, 3, 4), (960, 5, 8)),
    ),
    "running status and a hanging note": lambda p: p.write_bytes(
        raw(METRE + bytes.fromhex("00903c40 003e40 83603c00") + END)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_files_are_read(tmp_path: Path, case: str) -> None:
    path = tmp_path / "odd.mid"
    ODD[case](path)
    found = figaro_tokens.tokens_of(SCHEME.read(path))
    assert (found.groups == 2).sum() >= 1
    assert v.UNKNOWN not in found.ids
    tempi = [name for name in token_names(SCHEME.read(path)) if name.startswith("Tempo_")]
    assert tempi[0] == "Tempo_16"  # without a tempo event 120 quarters per minute hold


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.data())
def test_no_damage_causes_more_than_a_refusal(tmp_path: Path, place: int, data: st.DataObject) -> None:
    path = tiny_midi.golden_b(tmp_path / "x.mid")
    content = bytearray(path.read_bytes())
    at = place % len(content)
    content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    path.write_bytes(content)
    with suppress(AudioError):
        assert len(figaro_tokens.tokens_of(SCHEME.read(path))) > 2


@random_pieces
@given(
    st.lists(st.tuples(st.integers(0, 900), st.sampled_from([0, 64, 127])), max_size=12),
    st.lists(st.tuples(st.integers(0, 900), st.integers(1, 300)), min_size=1, max_size=8),
)
def test_pedals_lengthen_notes_as_the_rule_says_one_by_one(tmp_path: Path, pedal: list, notes: list) -> None:
    rows = [(on, on + length, 40 + i, 64) for i, (on, length) in enumerate(sorted(notes))]
    path = tiny_midi.write(tmp_path / "x.mid", [(0, rows)], pedals={0: sorted(pedal, key=lambda p: p[0])})
    parsed = midi.read(path)
    (instrument,) = parsed.instruments
    spans, down = [], None
    for change in instrument.control_changes:
        if change.value >= 64 and down is None:
            down = change.time
        elif change.value < 64 and down is not None:
            spans.append((down, change.time))
            down = None
    first, wanted = 0, []
    for note in sorted(instrument.notes, key=lambda n: (n.start, n.pitch)):
        hits = [i for i in range(first, len(spans)) if note.end >= spans[i][0] and note.start < spans[i][1]]
        if hits:
            first = hits[0]
        wanted.append(parsed.time_to_tick(max([note.end, *(spans[i][1] for i in hits[-1:])])))
    read = figaro_tokens.score_of(parsed).notes
    moved = [parsed.time_to_tick(t) for t in read["start_s"]] - read["start"]
    assert (read["end"] + moved).tolist() == wanted


def test_a_pedal_that_never_rests_costs_no_time(tmp_path: Path) -> None:
    pedal = bytes.fromhex("00b0407f01b04000") * 30_000
    struck = bytes.fromhex("00903d4001803d00") * 15_000
    (tmp_path / "x.mid").write_bytes(raw(METRE + pedal + struck + END))
    parsed = midi.read(tmp_path / "x.mid")
    assert len(parsed.instruments[0].control_changes) == 60_000
    with pytest.raises(AudioError, match="bars; training"):  # quadratic in pedals and notes this would take minutes
        figaro_tokens.score_of(parsed, max_bars=4)


def test_what_mido_writes_the_survey_counts(tmp_path: Path) -> None:
    path = tiny_midi.golden_a(tmp_path / "x.mid")
    found, file = midi.survey(path.read_bytes()), mido.MidiFile(path)
    assert (found.kind, found.tracks, found.resolution) == (1, len(file.tracks), 480)
    assert found.events == sum(len(track) for track in file.tracks)
    assert found.notes == sum(m.type == "note_on" and m.velocity > 0 for track in file.tracks for m in track)
    assert found.ticks == max(sum(m.time for m in track) for track in file.tracks)


# --- what stands around the tracks, and what is no fault of a piece ---------------------------------------------------

LINE = raw(METRE + NOTE + END)
TWO = raw(METRE + END, NOTE + END)


def riff(data: bytes, *before: bytes, kind: bytes = b"RMID") -> bytes:
    chunks = b"".join([*before, b"data" + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)])
    return b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + kind + chunks


WRAPPED = {
    "one track too few": (
        raw(METRE + END, NOTE + END, count=1),
        "it announces 1 tracks and holds 2, which are all read",
    ),
    "one track too many": (raw(METRE + END, NOTE + END, count=3), "it announces 3 tracks and holds 2"),
    "no track": (raw(METRE + END, NOTE + END, count=0), "it announces 0 tracks and holds 2"),
    "type 0 with two tracks": (raw(METRE + END, NOTE + END, kind=0, count=1), "it announces 1 tracks and holds 2"),
    "RIFF": (riff(TWO), "it lies in a RIFF wrapper"),
    "RIFF with a note before it": (riff(TWO, b"LIST\x05\0\0\0INFOx\0"), "it lies in a RIFF wrapper"),
    "RIFF of odd length": (riff(raw(METRE + END, NOTE + END)), "it lies in a RIFF wrapper"),
    "RIFF with one track too few": (riff(raw(METRE + END, NOTE + END, count=1)), "RIFF wrapper; it announces 1 tracks"),
    "MacBinary": (b"\0\x05piece" + bytes(121) + TWO, "it lies behind a MacBinary header"),
    "zeros behind it": (TWO + bytes(100), "100 bytes behind its last track are no music"),
    "a tag behind it": (TWO + b"TAG" + b" " * 125, "128 bytes behind its last track are no music"),
    "a chunk of another program": (TWO[:14] + chunk(b"XFIH", b"abc") + TWO[14:], ""),
    "a chunk behind it": (TWO + chunk(b"XFKM", b"abcd"), ""),
    "a longer header": (b"MThd" + (8).to_bytes(4) + TWO[8:14] + b"\1\2" + TWO[14:], ""),
    "as the standard writes it": (TWO, ""),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_odd_files_are_read_whole_with_a_remark(tmp_path: Path, case: str) -> None:
    content, remark = WRAPPED[case]
    path = tmp_path / "x.mid"
    path.write_bytes(content)
    parsed = midi.read(path)
    assert [(n.pitch, n.velocity) for part in parsed.instruments for n in part.notes] == [(60, 64)]
    found = midi.survey(content)
    assert remark in found.remark if remark else found.remark == ""
    assert (found.tracks, found.notes) == (2, 1)
    assert midi.probe(path).remark == found.remark
    plain, _ = midi.plain_file(content)
    assert midi.plain_file(plain) == (plain, "")
    SCHEME.read(path)


def test_a_healthy_file_is_passed_on_as_it_is() -> None:
    assert midi.plain_file(LINE)[0] is LINE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TWO[:-3], "cut short"),
        (TWO + b"MTr", "cut short"),
        (TWO + b"MTrk\0\0", "cut short"),
        (TWO + b"MTrk\0\0\1\0abc", "cut short"),
        (riff(TWO)[:-5], "cut short"),
        (riff(LINE, kind=b"WAVE"), "does not begin with MThd"),
        (b"RIFF\x04\0\0\0RMID", "a RIFF wrapper without a MIDI file in it"),
        (riff(b"RIFFxxxx"), "does not begin with MThd"),
        (b"\0" * 128 + b"MThd", "ends in the middle"),
    ],
)
def test_odd_files_that_are_cut_or_hold_no_midi_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.rmi").write_bytes(content)
    with pytest.raises(AudioError, match=re.escape(reason)):
        midi.read(tmp_path / "x.rmi")


def test_a_piece_without_a_metre_is_for_figaro_alone_no_piece(tmp_path: Path) -> None:
    (tmp_path / "x.mid").write_bytes(raw(NOTE + END))
    with pytest.raises(AudioError, match=r"FIGARO's own reader drops such files.*other kinds take it, in 4/4"):
        SCHEME.read(tmp_path / "x.mid")
    assert midi.read(tmp_path / "x.mid").get_downbeats()[0] == 0


def test_a_piece_of_more_bars_than_a_small_table_gives_the_windows_that_lie_within_it(tmp_path: Path) -> None:
    """A model with rows for 32 bars hears the first windows of 60 bars, and the same ones as of a shorter piece."""
    notes = [(480 * i, 480 * i + 400, 50 + i % 24, 80) for i in range(240)]
    long = tiny_midi.write(tmp_path / "long.mid", [(0, notes)])
    scheme = FigaroScheme(window=32)
    windows = scheme.windows(scheme.read(long))
    assert windows
    assert [w.index for w in windows] == list(range(len(windows)))
    assert max(int(w.inputs[name].max()) for w in windows for name in ("bars", "description_bars")) <= 32
    whole = FigaroScheme().windows(FigaroScheme().read(long))  # of 256 bars nothing is cut off
    assert len(whole) == len(figaro_tokens.tokens_of(SCHEME.read(long))) // 257
    assert scheme.training_windows(scheme.read(long))
    longer = tiny_midi.write(tmp_path / "longer.mid", [(0, [(480 * i, 480 * i + 400, 60, 80) for i in range(1100)])])
    with pytest.raises(AudioError, match="bars; training skipped pieces of more than 256"):
        scheme.read(longer)
