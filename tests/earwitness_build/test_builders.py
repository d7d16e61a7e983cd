"""Builders: every corpus from files in its own format, the draws by lot, and everything that must be refused."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from earwitness import cli
from earwitness.data.manifest import holdings, read_card, read_manifest, read_splits
from earwitness.errors import InputError, ManifestError
from earwitness.models.cards import read_cards
from earwitness.util import file_hash
from earwitness_build.corpora import builders, captions, matching, stable_audio_lists
from earwitness_build.corpora.build import _unmatched, build
from earwitness_build.corpora.official import clip_names
from tests import tiny_midi
from tests.tiny import recording
from tests.tiny_corpora import MAKERS, write

# corpus -> split -> recordings found, before matching
FOUND = {
    "audiocaps": {"train": 11, "validation": 2, "test": 2},
    "audiocaps-paper": {"train": 11, "validation": 2, "test": 2},
    "audioset": {"balanced-train": 2, "eval": 1},
    "clotho": {"development": 2, "validation": 1, "evaluation": 2},
    "fma-sao": {"listed": 2, "unlisted": 2, "other-licence": 4, "no-licence": 2},
    "freesound-sao": {"listed": 3, "unlisted": 3, "other-licence": 3},
    "fsd50k": {"train": 5, "validation": 1, "eval": 3},
    "lakh": {"train": 2, "validation": 1, "test": 2},
    "maestro": {"train": 2, "validation": 1, "test": 1},
    "mtg-jamendo": {"train": 1, "validation": 1, "test": 1},
    "musiccaps": {"audioset-train": 2, "audioset-eval": 2},
}


def made(name: str, folder: Path, **options: Any) -> Path:
    """Write small official files of a corpus and build its manifest."""
    MAKERS[name](folder)
    return build(name, folder, any_version=True, **({"copies": False} | options)).manifest


@pytest.mark.parametrize("name", builders())
def test_every_corpus_is_built_from_its_official_format(name: str, tmp_path: Path) -> None:
    assert set(FOUND) == set(MAKERS) == set(builders()), "a corpus without a maker of small files is not tested"
    manifest = made(name, tmp_path, match=False)
    tracks = read_splits(manifest)  # paths are relative to the manifest's own folder: no root is needed
    assert pd.Series([t.split for t in tracks]).value_counts().to_dict() == FOUND[name]
    assert len(holdings(tracks).good) == len(tracks)
    assert all(t.duration_s > 0 for t in tracks)
    card = read_card(manifest)
    assert card is not None
    assert set(card.splits) == set(FOUND[name])
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in card.files.values())
    assert card.counts["tracks"] == len(tracks)
    for model, roles in card.targets.items():
        found = {t.role for t in read_manifest(manifest, target=model)}
        assert found == set(roles)


@pytest.mark.parametrize("name", builders())
def test_cards_say_whose_members_and_who_says_so(name: str) -> None:
    corpus, known = builders()[name], {card.name for card in read_cards().models}
    card = corpus.card
    assert set(card.targets) <= known, "a target without a model card"
    assert set(card.sources) == set(card.targets)
    assert {split for side in corpus.sides for split in side} <= set(card.splits)
    for model, roles in card.targets.items():
        if corpus.sides and "member" in roles:  # what has non-members alone is compared with nothing of this corpus
            assert ({*roles["member"]}, {*roles["nonmember"]}) == tuple(map(set, corpus.sides)), f"{model}: not matched"
    assert card.source
    assert card.known_biases


def test_one_caption_is_drawn_and_what_is_gone_changes_no_other_draw(tmp_path: Path) -> None:
    first = {t.track_id: t.caption for t in read_splits(made("audiocaps", tmp_path, match=False))}
    (tmp_path / "audio" / "val0_30.wav").unlink()
    built = build("audiocaps", tmp_path, copies=False, match=False, any_version=True, force=True)
    again = {t.track_id: t.caption for t in read_splits(built.manifest)}
    assert first.keys() - again.keys() == {"val0_30"}
    assert all(again[name] == first[name] for name in again)
    captions = set()
    for seed in range(6):
        built = build("audiocaps", tmp_path, copies=False, seed=seed, match=False, any_version=True, force=True)
        captions |= {t.caption for t in read_splits(built.manifest) if t.track_id == "test0_30"}
    assert len(captions) > 1


def test_recordings_are_found_under_the_names_people_give_them(tmp_path: Path) -> None:
    rows = pd.read_csv(made("audiocaps", tmp_path, match=False)).set_index("track_id")["path"]
    assert rows["val0_30"] == "audio/val0_30.wav"
    assert rows["val1_30"] == "audio/val1.wav"
    assert rows["test0_30"] == "audio/2000.wav"
    assert rows["test1_30"] == "audio/Ytest1.wav"
    gone = pd.read_csv(tmp_path / "audiocaps.gone.csv")
    assert gone["track_id"].tolist() == ["-tr11_110", "val2_30", "test2_30"]


def _sides(n: int, m: int) -> pd.DataFrame:
    """Members last longer and say more than non-members, and are by other artists, but overlap."""
    rows = [(f"m{i}", "ABC"[i % 3], 10.0 + i % 9, "word " * (3 + i % 12), True) for i in range(n)]
    rows += [(f"n{i}", "BCD"[i % 3], 8.0 + i % 9, "word " * (1 + i % 12), False) for i in range(m)]
    return pd.DataFrame(rows, columns=["track_id", "artist", "duration_s", "caption", "member"])


def test_matched_sides_agree_cell_by_cell() -> None:
    rows = _sides(600, 300)
    drawn = matching.matched(rows, rows["member"], ~rows["member"], seed=0)
    sides = matching.cells(rows).assign(member=rows["member"], n=1)
    options = {"index": list(matching.ALIKE), "columns": "member", "values": "n", "aggfunc": "sum", "fill_value": 0}
    table = sides[drawn].pivot_table(**options)
    assert len(table) > 10
    assert (table[True] == table[False]).all()
    full = sides.pivot_table(**options)
    assert drawn.sum() == 2 * full.min(axis=1).sum()  # no fewer than the smaller side of each cell
    assert set(rows.loc[drawn, "artist"]) == {"B", "C"}
    shuffled = rows.sample(frac=1, random_state=1)
    other = matching.matched(shuffled, shuffled["member"], ~shuffled["member"], seed=0)
    assert set(shuffled.loc[other, "track_id"]) == set(rows.loc[drawn, "track_id"])
    assert set(rows.loc[matching.matched(rows, rows["member"], ~rows["member"], seed=1), "track_id"]) != set(
        rows.loc[drawn, "track_id"]
    )


def test_what_has_no_counterpart_goes_to_splits_of_its_own(tmp_path: Path) -> None:
    manifest = made("maestro", tmp_path)
    assert {t.split for t in read_splits(manifest)} == {"train", "validation", "test"}
    MAKERS["fma-sao"](tmp_path / "fma")
    tracks = (tmp_path / "fma" / "fma_metadata" / "tracks.csv").read_text().replace(",Bo,", ",Cy,")
    (tmp_path / "fma" / "fma_metadata" / "tracks.csv").write_text(tracks.replace("3,First,Cy", "3,First,Bo"))
    built = build("fma-sao", tmp_path / "fma", copies=False, any_version=True)
    roles = read_manifest(built.manifest, target="stabilityai/stable-audio-open-1.0")
    assert sorted((t.role, t.artist) for t in roles) == [("member", "Ann"), ("nonmember", "Ann")]
    card = read_card(built.manifest)
    assert card is not None
    assert {"listed-rest", "unlisted-rest"} <= set(card.splits)


@pytest.mark.parametrize(
    ("licence", "part"),
    [
        ("Attribution", "unlisted"), ("Attribution 3.0 United States", "unlisted"), ("CC0 1.0 Universal", "unlisted"),
        ("http://creativecommons.org/licenses/by/3.0/", "unlisted"), ("CC BY 4.0", "unlisted"),
        ("http://creativecommons.org/licenses/sampling+/1.0/", "unlisted"), ("Public Domain Mark 1.0", "unlisted"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "unlisted"),
        ("http://creativecommons.org/licenses/by-nc/3.0/", "other-licence"), ("CC BY-SA 4.0", "other-licence"),
        ("Attribution-NonCommercial-ShareAlike 3.0 International", "other-licence"), ("CC-BY-ND", "other-licence"),
        ("Attribution-NoDerivatives", "other-licence"), ("FMA-Limited: Download Only", "other-licence"),
        (" ", "no-licence"),
        ("http://creativecommons.org/licenses/nc-sampling+/1.0/", "other-licence"),
        ("Creative Commons 0", "unlisted"), ("Creative Commons Attribution", "unlisted"), ("CC 0", "unlisted"),
        ("Creative Commons Attribution 4.0 International", "unlisted"), ("Creative Commons BY 3.0", "unlisted"),
        ("Creative Commons Attribution-NonCommercial", "other-licence"), ("Creative Commons BY-SA", "other-licence"),
        ("Creative Commons Attribution NoDerivatives", "other-licence"), ("Creative Commons", "other-licence"),
    ],
)  # fmt: skip
def test_only_licences_of_the_list_make_a_non_member(licence: str, part: str) -> None:
    assert stable_audio_lists.part(licence, on_list=False) == part
    assert stable_audio_lists.part(licence, on_list=True) == "listed"


def test_sounds_of_freesound_may_come_from_its_own_interface(tmp_path: Path) -> None:
    MAKERS["freesound-sao"](tmp_path)
    rows = [[n, "rain.wav", "ann", "http://creativecommons.org/licenses/by/4.0/", 61.5, "2015-02-01T10:00:00"]
            for n in (64760, 64763)]  # fmt: skip
    write(tmp_path / "freesound_sounds.csv", [list(stable_audio_lists.FIELDS), *rows])
    built = build("freesound-sao", tmp_path, copies=False, any_version=True)
    tracks = read_manifest(built.manifest, target="stabilityai/stable-audio-open-1.0")
    assert [(t.track_id, t.role, t.duration_s, t.released) for t in tracks] == [
        ("64760", "member", 61.5, "2015-02-01"),
        ("64763", "nonmember", 61.5, "2015-02-01"),
    ]


def test_a_date_that_is_none_is_left_empty_and_counted(tmp_path: Path) -> None:
    MAKERS["mtg-jamendo"](tmp_path)
    _edit("raw.meta.tsv", ("2006-05-01", "0000-00-00"))(tmp_path)
    built = build("mtg-jamendo", tmp_path, copies=False, any_version=True)
    assert sorted(t.released for t in read_splits(built.manifest))[:2] == ["", "2006-05-02"]
    assert any(
        "1 release date of the official files can be no date" in note and "0000-00-00" in note for note in built.notes
    )


def test_the_papers_audiocaps_has_one_caption_a_clip_and_no_speech(tmp_path: Path) -> None:
    """The last caption counts, substrings are case-sensitive, and caption rows are counted as clips."""
    MAKERS["audiocaps-paper"](tmp_path)
    _edit("train.csv", ("A dog barks then stops", "A man speaks"), ("A dog barks loudly then", "Speech then"))(tmp_path)
    changes = (("test 0, caption 4, rain", "Two dogs bark in the rain"), ("test 1, caption 0", "a speech"))
    _edit("test.csv", *changes)(tmp_path)
    built = build("audiocaps-paper", tmp_path, copies=False, any_version=True)
    held = {t.track_id: t.caption for t in read_splits(built.manifest)}
    assert "-tr00_0" not in held, "it speaks"
    assert held["-tr01_10"] == "Speech stop", "a capital letter is another word"
    assert held["test0_30"] == "Two dog bark rain", "the last of its captions"
    assert "test1_30" in held, "only the last caption is asked"
    card = read_card(built.manifest)
    assert card is not None
    assert card.captions == "approximate"
    for line in ("test: 15 captions are 3 clips, the units", "1 of 18 clips were left out", "nltk is not here"):
        assert any(line in note for note in card.known_biases), line
    assert not any("paper's" in note for note in card.known_biases)


STUB = {
    "__init__.py": "__version__ = '9.9'\nfrom nltk import data\n"
    "KNOWN = {'dogs': 'NNS', 'barking': 'VBG', 'loudly': 'RB'}\n"
    "def pos_tag(words):\n    return [(w, KNOWN.get(w, 'XX')) for w in words]\n",
    "data.py": "import pathlib\nimport zipfile\nHOME = pathlib.Path(__file__).parents[1] / 'nltk_data'\n"
    "class Zip:\n    def __init__(self, path): self.zipfile = zipfile.ZipFile(path)\n"
    "def find(name):\n    path = HOME / name\n"
    "    if not path.exists(): raise LookupError(name)\n    return Zip(path) if path.suffix == '.zip' else path\n",
    "corpus.py": "from nltk import data\nclass stopwords:\n    @staticmethod\n    def words(language):\n"
    "        return data.find('corpora/stopwords').joinpath(language).read_text().split()\n",
    "stem.py": "class WordNetLemmatizer:\n    def lemmatize(self, word, tag):\n        return f'{word}/{tag}'\n",
    "tokenize.py": "def word_tokenize(text):\n    return text.replace('.', ' .').split()\n",
}


def test_captions_are_exact_where_nltk_and_its_data_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in with the data's places on disk: folders, and an archive."""
    for name, text in STUB.items():
        (tmp_path / "nltk").mkdir(exist_ok=True)
        (tmp_path / "nltk" / name).write_text(text)
    for name in captions.DATA:
        (tmp_path / "nltk_data" / name).mkdir(parents=True)
    (tmp_path / "nltk_data/corpora/stopwords/english").write_text("the\na\n")
    (tmp_path / "nltk_data/corpora/wordnet").rmdir()
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.partition(".")[0] == "nltk"]:
        monkeypatch.delitem(sys.modules, module)
    text = "A dogs barking the 3 Loudly loudly."
    _, kind, (note,) = captions.processed([text])
    assert kind == "approximate"
    assert "NLTK's corpora/wordnet is not here" in note
    with zipfile.ZipFile(tmp_path / "nltk_data/corpora/wordnet.zip", "w") as archive:
        archive.writestr("wordnet/data.noun", "dog")
    texts, kind, (note,) = captions.processed([text, ""])
    assert (texts, kind) == (["A/n dogs/n barking/v Loudly/n loudly/r", ""], "exact")
    assert "NLTK 9.9 with tokenizers/punkt_tab " in note
    assert file_hash(tmp_path / "nltk_data/corpora/wordnet.zip")[:16] in note
    monkeypatch.undo()
    for module in [name for name in sys.modules if name.partition(".")[0] == "nltk"]:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A bus passes as birds chirp", "A bus passe bird chirp"),
        ("Glass breaks, 3 times!", "Glass break time"),
        ("The dog's bark, high-pitched", "The dog bark high-pitched"),
        ("Rain is hissing on grass", "Rain hissing grass"),
        ("", ""),
    ],
)
def test_rules_for_captions_by_hand(text: str, cleaned: str) -> None:
    assert captions._near(text) == cleaned


@pytest.mark.parametrize("name", ["cc_30_40", "Ycc_30_40", "cc_30.000_40.000", "Ycc_30.000_40.000", "cc_30000_40000"])
def test_clips_are_found_under_common_downloaders_names(name: str, tmp_path: Path) -> None:
    MAKERS["audioset"](tmp_path)
    (tmp_path / "cc.wav").rename(tmp_path / f"{name}.wav")
    built = build("audioset", tmp_path, copies=False, match=False, any_version=True)
    assert {t.track_id: t.path.stem for t in read_splits(built.manifest)}["cc"] == name
    MAKERS["audiocaps"](tmp_path / "caps")
    other = name.replace("cc", "val0")
    (tmp_path / "caps/audio/val0_30.wav").rename(tmp_path / f"caps/audio/{other}.wav")
    built = build("audiocaps", tmp_path / "caps", copies=False, match=False, any_version=True)
    assert {t.track_id: t.path.stem for t in read_splits(built.manifest)}["val0_30"] == other


def test_half_seconds_are_named_as_they_are() -> None:
    assert clip_names("x", 30.5, 40.5)[::2] == ("x_30.5_40.5", "x_30.500_40.500", "x_30500_40500")


def test_a_heading_without_its_mark_is_no_clip(tmp_path: Path) -> None:
    MAKERS["audioset"](tmp_path)
    path = tmp_path / "eval_segments.csv"
    path.write_text("YTID, start_seconds, end_seconds, positive_labels\n" + path.read_text())
    built = build("audioset", tmp_path, copies=False, match=False, any_version=True)
    assert {t.track_id for t in read_splits(built.manifest)} == {"--aa", "bb", "cc"}
    assert any("eval_segments.csv, line 1: taken for a heading without #" in note for note in built.notes)
    path.write_text(path.read_text() + "dd, soon, 40.000, x\n")
    with pytest.raises(ManifestError, match=r"eval_segments\.csv, line 6: start is 'soon', expected seconds"):
        build("audioset", tmp_path, copies=False, any_version=True, force=True)


def test_a_shortened_list_of_jamendo_is_refused(tmp_path: Path) -> None:
    MAKERS["mtg-jamendo"](tmp_path)
    with pytest.raises(ManifestError, match="split-0: expected 55525 records as published, found 3"):
        build("mtg-jamendo", tmp_path, copies=False)


def test_where_nothing_matches_the_reason_is_the_true_one(tmp_path: Path) -> None:
    MAKERS["lakh"](tmp_path)
    for path in (tmp_path / "lmd_full/9").iterdir():
        path.unlink()
    built = build("lakh", tmp_path, copies=False, any_version=True)
    assert any(note.startswith("no non-member is left (test: gone, or copies)") for note in built.notes)
    corpus = builders()["lakh"]
    assert _unmatched([2, 3], corpus).startswith("none of 2 members and 3 non-members agree in length: everything")
    assert "artist, length, words" in _unmatched([2, 3], builders()["audiocaps"])


def test_clothos_metadata_are_latin_1_as_published(tmp_path: Path) -> None:
    tracks = read_splits(made("clotho", tmp_path, match=False))
    assert {t.artist for t in tracks} == {"José"}


def _edit(name: str, *changes: tuple[str, str]) -> Callable[[Path], object]:
    def change(folder: Path) -> object:
        (path,) = [p for p in folder.rglob(Path(name).name) if p.as_posix().endswith(name)]
        raw = path.read_bytes()
        for old, new in changes:
            assert old.encode() in raw
            raw = raw.replace(old.encode(), new.encode(), 1)
        return path.write_bytes(raw)

    return change


def _latin1(folder: Path) -> object:
    path = folder / "clotho_captions_development.csv"
    return path.write_bytes(path.read_text().replace("words", "wörds").encode("latin-1"))


def _utf16(folder: Path) -> object:
    path = folder / "dataset" / "train.csv"
    return path.write_text(path.read_text(), encoding="utf-16")


def _copy(old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> object:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        return (folder / new).write_bytes((folder / old).read_bytes())

    return change


def _no_audio(folder: Path) -> object:
    return [path.unlink() for path in folder.rglob("*.wav")]


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no official file": (
        "musiccaps",
        lambda f: (f / "musiccaps-public.csv").rename(f / "musiccaps-publik.csv"),
        r"musiccaps-public\.csv: expected this official file under .*found none; did you mean 'music",
    ),
    "two official files": (
        "audiocaps",
        _copy("dataset/val.csv", "old/val.csv"),
        "expected one such file .*dataset/val.csv and old/val",
    ),
    "columns renamed": (
        "audiocaps",
        _edit("train.csv", ("youtube_id", "yt_id")),
        "train.csv: expected a column 'youtube_id', found audiocap_id, yt_id, start_time, caption.*version that",
    ),
    "columns of another version": (
        "fma-sao",
        _edit("tracks.csv", (",duration,", ",seconds,")),
        "expected a column 'track/duration'",
    ),
    "an entry renamed": ("fsd50k", _edit("dev_clips_info_FSD50K.json", ('"uploader"', '"user"')), "has no 'uploader'"),
    "an entry missing": (
        "fsd50k",
        _edit("eval_clips_info_FSD50K.json", ('"900"', '"990"')),
        "an entry for clip 900 of eval.csv",
    ),
    "duplicated id": (
        "audiocaps",
        _edit("train.csv", ("101,", "100,")),
        "train.csv, line 3: audiocap_id '100' was used before",
    ),
    "duplicated track": (
        "fma-sao",
        _edit("tracks.csv", ("\n4,", "\n3,")),
        "tracks.csv, line 6: track id '3' was used before",
    ),
    "captions without ids": (
        "audiocaps-paper",
        _edit("train.csv", ("\n101,", "\n,")),
        "train.csv, line 3: audiocap_id '' is empty",
    ),
    "empty id": ("musiccaps", _edit("musiccaps-public.csv", ("\nm1,", "\n,")), "line 3: ytid '' is empty"),
    "an id in two splits": (
        "audiocaps",
        _edit("val.csv", ("1000,val0,30", "1000,-tr00,0")),
        "'-tr00_0' is listed with two splits",
    ),
    "ids with no audio": ("clotho", _no_audio, "none of 5 recordings found; the first was looked for as development/"),
    "two recordings": (
        "audiocaps",
        _copy("audio/val1.wav", "more/val1.wav"),
        "val1: expected one recording .*audio/val1.wav and more",
    ),
    "wrong encoding": ("clotho", _latin1, "clotho_captions_development.csv, line 2: expected UTF-8, found other bytes"),
    "wrong encoding from its first byte": ("audiocaps", _utf16, "train.csv, line 1: expected UTF-8, found other bytes"),
    "a column of licences renamed": (
        "clotho",
        _edit("clotho_metadata_validation.csv", (",license", ",licence")),
        "clotho_metadata_validation.csv: expected a column 'license', .*did you mean 'licence'",
    ),
    "path of another system": (
        "maestro",
        _edit("maestro-v3.0.0.csv", ("2004/p0.wav", "C:/p0.wav")),
        "line 2: a path that leaves the audio folder",
    ),
    "absolute path": (
        "maestro",
        _edit("maestro-v3.0.0.csv", ("2004/p0.wav", "/etc/p0.wav")),
        "line 2: a path that leaves the audio folder",
    ),
    "parent path": (
        "mtg-jamendo",
        _edit("split-0/autotagging-test.tsv", ("16/216", "../216")),
        "line 2: a path that leaves",
    ),
    "a folder that is not the first digit": (
        "lakh",
        _edit("test.txt", ("9/9ddd", "8/9ddd")),
        "test.txt, line 2: expected <digit>/<32 hexadecimal digits>.mid, found '8/9ddd",
    ),
    "a file in two lists": ("lakh", _edit("val.txt", ("0/0" + "c" * 31, "9/" + "9" * 32)), "is listed with two splits"),
    "not a number": (
        "maestro",
        _edit("maestro-v3.0.0.csv", ("100.0", "1:40")),
        "line 2: duration is '1:40', expected seconds",
    ),
    "half a row": (
        "musiccaps",
        _edit("musiccaps-public.csv", (",4,False,False\nm1", "\nm1")),
        "line 2: expected 9 cells, found 6",
    ),
    "half a file": ("fsd50k", _edit("dev_clips_info_FSD50K.json", ('"}}', '"')), "not JSON"),
    "another column's value": (
        "musiccaps",
        _edit("musiccaps-public.csv", ("False,False", "False,no")),
        "line 2: is_audioset_eval is 'no'",
    ),
    "a list of another archive": (
        "fma-sao",
        _edit("fma_dataset_attribution2.csv", ("\n2,", "\n7002,"), ("\n3,", "\n7003,")),
        "expected ids of tracks.csv, found 0 of 3 there",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_official_files_are_one_clear_line_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    name, change, message = BAD[case]
    MAKERS[name](tmp_path)
    change(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ManifestError, match=message) as caught:
        build(name, tmp_path, copies=False, any_version=True)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_another_version_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    MAKERS["audiocaps"](tmp_path)
    with pytest.raises(
        ManifestError, match=r"train\.csv: expected 49838 records as published, found 12: another version"
    ):
        build("audiocaps", tmp_path)
    card = read_card(build("audiocaps", tmp_path, copies=False, any_version=True).manifest)
    assert card is not None
    assert any("expected 49838 records" in line for line in card.known_biases)


def test_missing_licences_are_counted(tmp_path: Path) -> None:
    MAKERS["fsd50k"](tmp_path)
    _edit("eval_clips_info_FSD50K.json", ("http://creativecommons.org/licenses/by/3.0/", ""))(tmp_path)
    built = build("fsd50k", tmp_path, copies=False, any_version=True)
    assert "1 of 9 recordings have no licence in the official files" in built.notes


def test_an_earlier_manifest_is_kept_and_a_failure_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = made("maestro", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("maestro.*")}
    assert len(before) == 3
    with pytest.raises(ManifestError, match=r"maestro\.csv: exists; --force builds it again"):
        build("maestro", tmp_path, copies=False, any_version=True)
    monkeypatch.setattr("earwitness_build.corpora.build.yaml.safe_dump", _full_disk)
    with pytest.raises(ManifestError, match="no space left"):
        build("maestro", tmp_path, copies=False, any_version=True, force=True, seed=5)
    assert {path: path.read_bytes() for path in tmp_path.glob("maestro.*")} == before
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(InputError, match="no builder for 'mastro'; there are audiocaps, .*did you mean 'maestro'"):
        build("mastro", tmp_path)
    assert manifest.is_file()


@pytest.mark.parametrize("name", ["maestro.csv", "maestro.card.yml", "maestro.gone.csv"])
def test_none_of_the_three_files_is_overwritten_unasked(name: str, tmp_path: Path) -> None:
    MAKERS["maestro"](tmp_path)
    (tmp_path / name).write_text("written by hand")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ManifestError, match=f"{re.escape(name)}: exists; --force builds it again"):
        build("maestro", tmp_path, copies=False, any_version=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / name).read_text() == "written by hand"
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(ManifestError, match=f"{re.escape(name)}: is a folder; name another manifest"):
        build("maestro", tmp_path, copies=False, any_version=True, force=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_breaks_lines_elsewhere_does_not_break_a_row(tmp_path: Path) -> None:
    MAKERS["audiocaps"](tmp_path)
    _edit("train.csv", ("A dog barks ", "A dog\u2028barks\x85 "))(tmp_path)
    tracks = read_splits(build("audiocaps", tmp_path, copies=False, match=False, any_version=True).manifest)
    assert "A dog\u2028barks\x85 then stops" in {t.caption for t in tracks}


def test_a_link_to_elsewhere_is_no_recording_of_the_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    MAKERS["maestro"](folder)
    (folder / "2004" / "p0.wav").rename(tmp_path / "elsewhere.wav")
    (folder / "2004" / "p0.wav").symlink_to(tmp_path / "elsewhere.wav")
    built = build("maestro", folder, copies=False, match=False, any_version=True)
    assert pd.read_csv(built.gone)["track_id"].str.endswith("p0").tolist() == [True]
    assert len(read_splits(built.manifest)) == 3


def test_an_official_file_is_never_overwritten(tmp_path: Path) -> None:
    MAKERS["musiccaps"](tmp_path)
    with pytest.raises(ManifestError, match="is one of the official files; name another manifest"):
        build("musiccaps", tmp_path, copies=False, out=tmp_path / "musiccaps-public.csv", any_version=True, force=True)


def _full_disk(*_: object, **__: object) -> str:
    raise OSError(28, "No space left on device")


def test_copies_are_set_apart_before_anything_is_matched(tmp_path: Path) -> None:
    """A copy across splits convicts the innocent, so neither stays; within a split the first does."""
    MAKERS["maestro"](tmp_path)
    table = (tmp_path / "maestro-v3.0.0.csv").read_text().splitlines()
    (tmp_path / "maestro-v3.0.0.csv").write_text(
        "\n".join([*table, *(table[1].replace("p0", f"p{n}") for n in range(4, 7))]) + "\n"
    )
    for number in range(7):  # 0: its copy is in the test part; 1; 2: validation; 4 and 5: one recording; 6
        same = {3: 0, 5: 4}.get(number, number)
        sound = recording(tmp_path / f"{number}.wav", 4, seed=same)
        sound.rename(tmp_path / str(2004 + min(number, 3) % 4 if number < 4 else 2004) / f"p{number}.wav")
    built = build("maestro", tmp_path, any_version=True, match=False)
    tracks = {t.track_id[-2:]: t for t in read_splits(built.manifest)}
    assert {name: t.split for name, t in tracks.items()} == {
        "p0": "copies", "p1": "train", "p2": "validation", "p3": "copies", "p4": "train", "p5": "copies", "p6": "train"
    }  # fmt: skip
    assert tracks["p0"].work == tracks["p3"].work
    assert tracks["p4"].work == tracks["p5"].work
    card = read_card(built.manifest)
    assert card is not None
    assert "copies" in card.splits
    assert "1 copies within a split and 2 across splits were set apart (split copies)" in built.notes


def test_copies_of_scores_are_found_by_their_notes_and_notes_are_counted(tmp_path: Path) -> None:
    """A test file that is a train file in another key trained the model under the other's name."""
    MAKERS["lakh"](tmp_path)
    rng = np.random.default_rng(0)
    files = sorted((tmp_path / "lmd_full").rglob("*.mid"))
    for path in files:
        pitches = rng.integers(40, 80, 40)
        if path.stem.startswith("2b"):
            source = pitches
        if path.stem == "9" * 32:
            pitches = source + 2
        notes = [(240 * i, 240 * i + 200, int(pitch), 80) for i, pitch in enumerate(pitches)]
        tiny_midi.write(path, [(0, notes[: 30 if path.stem.startswith("0c") else 40])])
    built = build("lakh", tmp_path, any_version=True, match=False)
    found = {t.track_id[:2]: t.split for t in read_splits(built.manifest)}
    assert found == {"1a": "train", "2b": "copies", "0c": "validation", "99": "copies", "9d": "test"}
    assert "0 copies within a split and 2 across splits were set apart (split copies)" in built.notes
    card = read_card(built.manifest)
    assert card is not None
    counted = {name: n for name, n in card.counts.items() if "notes" in name}
    assert counted == {"notes": 190, "fewest_notes_in_a_track": 30, "most_notes_in_a_track": 40}
    MAKERS["maestro"](tmp_path / "sound")
    sound = read_card(build("maestro", tmp_path / "sound", any_version=True, copies=False).manifest)
    assert sound is not None
    assert "notes" not in sound.counts


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    MAKERS["audiocaps"](tmp_path)
    arguments = ["manifest", "build", "audiocaps", f"--from={tmp_path}", "--any-version", "--no-copies"]
    answer = CliRunner().invoke(cli.app, arguments)
    assert answer.exit_code == 0, answer.output
    assert "train: 11 of 12 recordings found, 1 gone" in answer.output
    assert "note: 1 of 3 recordings of test are gone" in answer.output
    verify = CliRunner().invoke(cli.app, ["manifest", "verify", str(tmp_path / "audiocaps.csv")])
    assert verify.exit_code == 0
    assert "15 good" in verify.output
    (tmp_path / "audio" / "val1.wav").write_bytes(b"x")
    verify = CliRunner().invoke(cli.app, ["manifest", "verify", str(tmp_path / "audiocaps.csv")])
    assert verify.exit_code == 1
    assert "1 corrupt: val1_30" in verify.output
