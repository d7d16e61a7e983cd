"""The fingerprint: copies are found through what people do to files, and music that is only alike is not a copy."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from earwitness.book.studies import fingerprint_recall
from earwitness.data.fingerprint import (
    COMMON,
    HOP,
    KEPT,
    MIN_HITS,
    OFFSETS,
    RATE,
    WINDOW,
    WordFile,
    _chosen,
    candidates,
    duplicates,
    fingerprint,
    words,
)
from earwitness.errors import StoreError
from earwitness.pocket import render
from earwitness.pocket.corpus import plan
from earwitness.types import Track
from earwitness.util import results_dir
from tests.tiny import container, recording, tune


@pytest.fixture(scope="module")
def music() -> dict[str, np.ndarray]:
    """Twelve tracks by two artists of the corpus: six each, alike in style, as 16 kHz audio."""
    entries = plan()
    chosen = [e for e in entries if e.artist.slug in {entries[0].artist.slug, "quillaby"} and e.number < 6]
    return {e.track_id: render.render(e.piece(), e.artist).astype(np.float32) for e in chosen}


def _pairs(prints: dict[str, np.ndarray]) -> set[tuple[str, str]]:
    tracks = [Track(name, Path(name), "suspect") for name in prints]
    found = duplicates(tracks, prints)
    return set(zip(found["track_id"], found["other_id"], strict=True))


def _saved(path: Path, audio: np.ndarray, **options: object) -> Path:
    sf.write(path, audio, 16_000, **options)
    return path


CONSTANT = {"bitrate_mode": "CONSTANT"}
CHANGES = {
    "MP3 at about 40 kbit/s": lambda p, x: _saved(p.with_suffix(".mp3"), x, compression_level=0.8, **CONSTANT),
    "MP3 at about 80 kbit/s": lambda p, x: _saved(p.with_suffix(".mp3"), x, compression_level=0.5, **CONSTANT),
    "Vorbis": lambda p, x: _saved(p.with_suffix(".ogg"), x, compression_level=0.6),
    "AAC": lambda p, x: container(p.with_suffix(".m4a"), x),
    "6 dB lower": lambda p, x: _saved(p, 0.5 * x),
    "6 dB louder, clipped": lambda p, x: _saved(p, np.clip(2 * x, -1, 1)),
    "start cut off": lambda p, x: _saved(p, x[12_345:]),
    "both ends cut off": lambda p, x: _saved(p, x[11_111:-22_222]),
    "silence before": lambda p, x: _saved(p, np.concatenate([np.zeros(7777), x])),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_every_copy_is_found_and_nothing_else(change: str, music: dict[str, np.ndarray], tmp_path: Path) -> None:
    prints = {name: fingerprint(_saved(tmp_path / f"{name}.wav", audio)) for name, audio in music.items()}
    copies = {f"{name}-copy": CHANGES[change](tmp_path / f"{name}-copy.wav", audio) for name, audio in music.items()}
    expected = {(name, f"{name}-copy") for name in prints}
    assert _pairs(prints | {name: fingerprint(path) for name, path in copies.items()}) == expected


def test_the_offset_says_where_the_copy_begins(music: dict[str, np.ndarray]) -> None:
    audio = next(iter(music.values()))
    tracks = [Track(n, Path(n), role) for n, role in (("whole", "suspect"), ("part", "held_out"))]
    prints = {"whole": words(_at_8k(audio)), "part": words(_at_8k(audio)[HOP * 100 :])}
    (row,) = duplicates(tracks, prints).to_dict("records")
    assert row["offset_s"] == pytest.approx(100 * HOP / RATE)
    assert (row["role"], row["other_role"]) == ("suspect", "held_out")
    assert row["similarity"] == pytest.approx(1, abs=0.01)


def _at_8k(audio: np.ndarray) -> np.ndarray:
    from scipy.signal import resample_poly

    return resample_poly(audio, 1, 2).astype(np.float32)


def test_candidates_are_those_of_comparing_all_with_all(music: dict[str, np.ndarray]) -> None:
    """The index against its slow twin: every pair of frames with the same rare word, counted by offset."""
    held = [words(_at_8k(audio))[:120] for audio in list(music.values())[:4]]
    held += [held[0][10:], held[1]]
    count: dict[int, int] = {}
    for value in np.concatenate(held).tolist():
        count[value] = count.get(value, 0) + 1
    slow: dict[tuple[int, int, int], int] = {}
    for i in range(len(held)):
        for j in range(i + 1, len(held)):
            for a, x in enumerate(held[i].tolist()):
                for b, y in enumerate(held[j].tolist()):
                    if x == y and x and count[x] <= COMMON:
                        slow[i, j, a - b] = slow.get((i, j, a - b), 0) + 1
    fast = [tuple(row) for row in candidates(held).tolist()]
    assert len(fast) == len(set(fast))
    assert all(slow[key] >= MIN_HITS for key in fast)
    for pair in {key[:2] for key in slow}:
        hits = sorted((n for key, n in slow.items() if key[:2] == pair and n >= MIN_HITS), reverse=True)
        assert sorted((slow[key] for key in fast if key[:2] == pair), reverse=True) == hits[:OFFSETS]


def test_sorting_part_by_part_changes_nothing(music: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    held = [words(_at_8k(audio)) for audio in music.values()]
    held += [print_[7:] for print_ in held]
    whole = candidates(held)
    assert len(whole) >= len(held) // 2
    monkeypatch.setattr("earwitness.data.fingerprint.PART", 500)
    assert (candidates(held) == whole).all()


def test_long_recordings_are_found_by_few_of_their_words() -> None:
    """Of minutes of sound only some words are looked up, and copies that begin elsewhere choose the same ones."""
    rng = np.random.default_rng(0)
    long = [rng.integers(1, 2**32, 12_000, dtype=np.uint32) for _ in range(20)]
    copies = [np.where(rng.random(len(w)) < 0.2, w, w ^ (np.uint32(1) << rng.integers(0, 32, len(w), dtype=np.uint32)))
              [4_000:] for w in long]  # fmt: skip
    found = candidates([*long, *copies])
    assert {(a, b, o) for a, b, o in found.tolist()} == {(i, 20 + i, 4_000) for i in range(20)}
    kept = [len(_chosen([w])[0]) for w in long]
    assert set(kept) == {KEPT}


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.01, 10), seed=st.integers(0, 99))
def test_gain_changes_no_word(gain: float, seed: int) -> None:
    audio = tune(1.0, seed)
    same = words(audio) ^ words((gain * audio).astype(np.float32))
    assert np.bitwise_count(same).sum() <= 2  # a tie decided by rounding


def test_what_is_too_short_or_silent_has_no_words() -> None:
    assert len(words(np.zeros(WINDOW, np.float32))) == 0
    assert not words(np.zeros(RATE * 2, np.float32)).any()
    assert duplicates([], {}).empty
    silent = {name: words(np.zeros(RATE * 2, np.float32)) for name in "ab"}
    assert _pairs(silent) == set()


def test_other_music_is_no_copy(tmp_path: Path) -> None:
    prints = {str(i): fingerprint(recording(tmp_path / f"{i}.wav", 4, seed=i)) for i in range(30)}
    assert _pairs(prints) == set()


def test_planted_copies_are_counted_and_so_is_what_is_merged_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {name: fingerprint_recall.CHANGES[name] for name in ("6 dB lower", "6 % faster (a semitone)")}
    monkeypatch.setattr(fingerprint_recall, "CHANGES", changes)
    tracks = [Track(str(i), recording(tmp_path / f"{i}.wav", 4, seed=i), "member") for i in range(3)]
    others = [Track(f"o{i}", recording(tmp_path / f"o{i}.wav", 4, seed=20 + i % 3), "member") for i in range(4)]
    table = fingerprint_recall.rates(tracks, others).set_index("change")
    assert table["found"].to_dict() == {"6 dB lower": 3, "6 % faster (a semitone)": 0}
    assert (table["false"] == 1).all()  # the first and the last of the others are one recording: no planted copy
    assert (table["pairs"] == 10 * 9 // 2 - 3).all()


@pytest.mark.slow
@pytest.mark.book
def test_no_two_tracks_of_the_corpus_are_merged(book: Path) -> None:
    """1,520 tracks of 32 artists, 1.15 million pairs, many with the same drums at the same tempo."""
    root = results_dir() / "pocket" / "audio"
    prints = {entry.track_id: fingerprint(root / entry.path) for entry in plan()}
    assert len(prints) == 1520
    assert _pairs(prints) == set()


# --- fingerprints in a file -------------------------------------------------------------------------------------------


def test_threads_keep_words_in_one_file_and_each_gets_its_own_back() -> None:
    rng = np.random.default_rng(0)
    made = [rng.integers(0, 2**32, length, dtype=np.uint32) for length in [0, 1, 7, *rng.integers(0, 400, 200)]]
    held = WordFile()
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(held.put, made))
    assert [len(one) for one in stored] == [len(one) for one in made]
    for one, words_ in zip(stored, made, strict=True):
        np.testing.assert_array_equal(np.asarray(one), words_)
    assert os.fstat(held.file.fileno()).st_size == 4 * sum(map(len, made))


@given(st.integers(0, 2**31), st.integers(1, 12))
@settings(deadline=None, max_examples=20)
def test_copies_are_found_in_a_file_as_in_memory(seed: int, count: int) -> None:
    rng, held = np.random.default_rng(seed), WordFile()
    made = {str(i): rng.integers(0, 2**32, rng.integers(0, 600), dtype=np.uint32) for i in range(count)}
    made |= {f"{name}-copy": words_[rng.integers(0, 20) :] for name, words_ in made.items() if rng.random() < 0.5}
    tracks = [Track(name, Path(name), "suspect") for name in made]
    pd.testing.assert_frame_equal(
        duplicates(tracks, {name: held.put(words_) for name, words_ in made.items()}), duplicates(tracks, made)
    )


@pytest.mark.parametrize("full", ["refused", "cut short"])
def test_a_full_disk_is_said_and_leaves_the_words_before_it(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held, write = WordFile(), os.pwrite
    first = held.put(np.arange(5, dtype=np.uint32))

    def refuse(file: int, content: bytes, at: int) -> int:
        if full == "refused":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[:6], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(StoreError, match=r"fingerprints cannot be kept in .*no space left on device.*TMPDIR"):
            held.put(np.arange(9, dtype=np.uint32))
    second = held.put(np.arange(3, dtype=np.uint32))
    assert (np.asarray(first).tolist(), np.asarray(second).tolist()) == ([0, 1, 2, 3, 4], [0, 1, 2])
