"""Manifests and cards: roles resolved per model, and every bad row named with its line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from earwitness.data import manifest
from earwitness.data.folders import read_folders
from earwitness.data.manifest import ROLES, CorpusCard, disagreement, read_card, read_manifest, read_splits
from earwitness.errors import ManifestError
from earwitness.types import Track
from earwitness.util import write_csv
from tests.tiny import recording

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = sorted((ROOT / "data_manifests").rglob("*.csv"))
CARD = """
title: t
version: 1
licence: CC0-1.0
citation: c
membership: by lot
targets:
  my/model: {member: [train], nonmember: [test]}
"""
ROWS = "track_id,path,split,artist,duration_s\nx,a.wav,train,A,1.5\ny,b.wav,test,A,\nz,c.wav,spare,B,2\n"


def _manifest(folder: Path, rows: str = ROWS, card: str | None = CARD) -> Path:
    path = folder / "m.csv"
    path.write_text(rows)
    if card:
        (folder / "m.card.yml").write_text(card)
    return path


def test_the_card_resolves_roles_and_drops_other_splits(tmp_path: Path) -> None:
    tracks = read_manifest(_manifest(tmp_path), target="my/model")
    assert [(t.track_id, t.role, t.path) for t in tracks] == [
        ("x", "member", tmp_path / "a.wav"),
        ("y", "nonmember", tmp_path / "b.wav"),
    ]
    assert tracks[0].duration_s == 1.5
    assert tracks[1].duration_s != tracks[1].duration_s


def test_roles_can_be_given_instead_of_a_target(tmp_path: Path) -> None:
    roles = {"suspect": ["spare"], "held_out": ["test", "train"]}
    assert [t.role for t in read_manifest(_manifest(tmp_path, card=None), roles=roles)] == [
        "held_out",
        "held_out",
        "suspect",
    ]


def test_a_role_column_needs_no_target_and_only_a_path(tmp_path: Path) -> None:
    tracks = read_manifest(_manifest(tmp_path, "path,role\na/b.wav,suspect\nc.wav,held_out\n", None))
    assert [(t.track_id, t.role) for t in tracks] == [("a/b.wav", "suspect"), ("c.wav", "held_out")]


def test_splits_are_read_without_roles(tmp_path: Path) -> None:
    assert [t.track_id for t in read_splits(_manifest(tmp_path))] == ["x", "y", "z"]
    assert [t.track_id for t in read_splits(_manifest(tmp_path), ["spare"])] == ["z"]


def test_splits_are_chosen_where_rows_hold_roles_too(tmp_path: Path) -> None:
    both = _manifest(tmp_path, "path,role,split\na.wav,suspect,old\nb.wav,held_out,new\n", None)
    assert [(t.path.name, t.role) for t in read_splits(both)] == [("a.wav", "suspect"), ("b.wav", "held_out")]
    assert [(t.path.name, t.role) for t in read_splits(both, ["new"])] == [("b.wav", "held_out")]
    with pytest.raises(ManifestError, match=r"m\.csv: no track has split 'nwe'; found new, old"):
        read_splits(both, ["new", "nwe"])
    roles = _manifest(tmp_path, "path,role\na.wav,suspect\n", None)
    with pytest.raises(ManifestError, match=r"m\.csv: no track has split 'new'; found no split column"):
        read_splits(roles, ["new"])


BAD = {
    "no such file": (None, {}, "found no such file"),
    "no path column": ("paths,role\na,suspect\n", {}, "expected a column 'path', found paths, role; did you mean"),
    "empty": ("path,role\n", {}, "at least one row"),
    "nothing at all": ("", {}, "not a UTF-8 CSV"),
    "ragged": ("path,role\na,suspect,x,y\nb,suspect,x,y,z\n", {}, "not a UTF-8 CSV|line"),
    "wrong role": ("path,role\na,suspect\nb,heldout\n", {}, "line 3: a role that is none of .*'heldout'"),
    "empty path": ("path,role\n,suspect\n", {}, "line 2: an empty path"),
    "absolute path": ("path,role\na,suspect\n/etc/passwd,suspect\n", {}, "line 3: a path that leaves"),
    "parent path": ("path,role\n../x.wav,suspect\n", {}, "line 2: a path that leaves"),
    "same id": ("track_id,path,role\nx,a,suspect\nx,b,suspect\n", {}, "line 3: a track_id used before"),
    "bad duration": ("path,role,duration_s\na,suspect,3:40\n", {}, "line 2: duration_s is '3:40'"),
    "no target": (ROWS, {}, "say which model it is about: target= one of my/model"),
    "unknown target": (ROWS, {"target": "my/modle"}, "my/model; did you mean 'my/model'"),
    "unknown split": (ROWS, {"roles": {"suspect": ["tarin"]}}, "no track has split 'tarin'; found spare, test, train"),
    "unknown role": (ROWS, {"roles": {"suspects": ["train"]}}, "role 'suspects' is none of .*did you mean 'suspect'"),
    "both roles": (ROWS, {"roles": {"suspect": ["test"], "held_out": ["test"]}}, "given to both suspect and held_out"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_manifests_are_one_clear_line(tmp_path: Path, name: str) -> None:
    rows, arguments, message = BAD[name]
    path = tmp_path / "m.csv" if rows is None else _manifest(tmp_path, rows)
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(path, **arguments)
    assert str(caught.value).startswith("m.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("card", "message"),
    [(CARD + "extra: 1\n", "extra"), (CARD.replace("title: t\n", ""), "title"), ("a: [", "not YAML"),
     (CARD.replace("nonmember", "others"), "targets.my/model")],
)  # fmt: skip
def test_bad_cards_name_the_key(tmp_path: Path, card: str, message: str) -> None:
    with pytest.raises(ManifestError, match=f"m.card.yml.*{message}"):
        read_manifest(_manifest(tmp_path, card=card), target="my/model")


def test_latin1_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes("path,role\ncafé.wav,suspect\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifest(tmp_path / "m.csv")


def test_folders_are_read_at_any_depth(tmp_path: Path) -> None:
    recording(tmp_path / "s" / "album" / "one.flac")
    recording(tmp_path / "h" / "two.wav")
    (tmp_path / "s" / "cover.jpg").write_bytes(b"")
    tracks = read_folders(suspects=tmp_path / "s", held_out=tmp_path / "h")
    assert [(t.track_id, t.role) for t in tracks] == [
        ("suspect/album/one.flac", "suspect"),
        ("held_out/two.wav", "held_out"),
    ]
    with pytest.raises(ManifestError, match="expected a folder"):
        read_folders(suspects=tmp_path / "none", held_out=tmp_path / "h")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="no audio file"):
        read_folders(suspects=tmp_path / "s", held_out=tmp_path / "empty")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_every_committed_manifest_has_a_card_whose_splits_and_counts_hold(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = read_card(path)
    assert isinstance(card, CorpusCard)
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    (tmp_path / f"{path.stem}.card.yml").write_text(
        path.with_suffix(".card.yml").read_text().replace("generated_by: earwitness.pocket", "")
    )
    everything = read_splits(copy)
    assert card.counts["tracks"] == len(everything)
    assert {t.split for t in everything} == set(card.splits)
    own_roles = "role" in path.read_text().splitlines()[0].split(",")  # an audit's: the card only says who saw what
    for target, roles in card.targets.items():
        assert {split for splits in roles.values() for split in splits} <= set(card.splits)
        found = {t.role for t in read_manifest(copy, target=target)}
        assert found == ({"suspect", "held_out"} if own_roles else set(roles)) <= set(ROLES)


@pytest.mark.parametrize("roles", [{"member": ["train"], "nonmember": ["test"]}, None], ids=["splits", "roles"])
def test_rows_keep_their_lines_and_cells_however_they_are_sliced(
    roles: dict[str, list[str]] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "SHARED", 3)
    rows = [f"t{i},{i % 3}/{i}.wav,{('train', 'spare', 'test')[i % 3]},A{i % 4},{i % 5},suspect" for i in range(40)]
    wanted = [i for i in range(40) if roles is None or i % 3 != 1]
    known = None
    for size in (1, 3, 7, 1000):
        monkeypatch.setattr(manifest, "SLICE", size)
        path = _manifest(tmp_path, "\n".join(["track_id,path,split,artist,duration_s,role", *rows, ""]), None)
        found = read_manifest(path, roles=roles)
        assert [t.track_id for t in found] == [f"t{i}" for i in wanted]
        assert [(t.split, t.artist, t.duration_s) for t in found] == [
            (("train", "spare", "test")[i % 3], f"A{i % 4}", float(i % 5)) for i in wanted
        ]
        assert found == (known or found)
        known = found
        for at, bad, problem in (
            (38, "t3,2/38.wav,test,A2,3,suspect", "a track_id used before"),
            (35, "t35,2/35.wav,test,A3,long,suspect", "expected seconds"),
        ):
            wrong = [*rows[:at], bad, *rows[at + 1 :]]
            _manifest(tmp_path, "\n".join(["track_id,path,split,artist,duration_s,role", *wrong, ""]), None)
            with pytest.raises(ManifestError, match=f"line {at + 2}: .*{problem}"):
                read_manifest(path, roles=roles)


def test_no_row_with_a_role_is_no_track(tmp_path: Path) -> None:
    assert read_manifest(_manifest(tmp_path), roles={"suspect": ["spare"]})[0].track_id == "z"
    path = _manifest(tmp_path, ROWS, CARD.replace("{member: [train], nonmember: [test]}", "{}"))
    assert read_manifest(path, target="my/model") == []


def test_hashes_in_capitals_are_those_in_small_letters(tmp_path: Path) -> None:
    path = _manifest(tmp_path, f"path,role,sha256\na,suspect,{'AB' * 32}\nb,suspect,{'ab' * 32}\nc,suspect,\n", None)
    assert [t.sha256 for t in read_manifest(path)] == ["ab" * 32, "ab" * 32, ""]


# --- tables that people hand in ---------------------------------------------------------------------------------------


def _row(i: int, caption: str = "slow music") -> str:
    return f"{i}.wav,{'suspect' if i % 2 else 'held_out'},{caption}\n"


OPEN_QUOTES = {
    "to the end of the file": ('"lively music', "", 9),
    "to the next quote": ('"lively music', '"quoted, later"', 7),
    "to a quote that ends a line": ('"lively music', 'odd "', 7),
}


@pytest.mark.parametrize("case", OPEN_QUOTES)
def test_a_quote_that_swallows_rows_names_the_line_on_which_it_opens(case: str, tmp_path: Path) -> None:
    opened, later, end = OPEN_QUOTES[case]
    rows = [_row(i) for i in range(8)]
    rows[2], rows[5] = _row(2, opened), _row(5, later or "slow music")
    table = _manifest(tmp_path, f"path,role,caption\n{''.join(rows)}", None)
    with pytest.raises(
        ManifestError, match=rf"m\.csv, line 4: a quote that opens here runs on to line {end}; close it"
    ):
        read_manifest(table)


def test_a_quote_before_a_path_that_swallows_rows_names_its_line(tmp_path: Path) -> None:
    table = _manifest(tmp_path, 'path,role\na.wav,suspect\n"b.wav,suspect\nc.wav,held_out\n"d.wav",held_out\n', None)
    with pytest.raises(ManifestError, match=r"m\.csv, line 3: a quote that opens here runs on to line 5"):
        read_manifest(table)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_captions_of_several_lines_are_read(newline: str, tmp_path: Path) -> None:
    said = newline.join(['"slow, sad, quiet', "then lively, with a drum, and loud", '1, 2, 3 and 4"'])
    path = tmp_path / "m.csv"
    path.write_bytes(newline.join(["path,role,caption", f"a.wav,suspect,{said}", "b.wav,held_out,x", ""]).encode())
    tracks = read_manifest(path)
    assert [t.path.name for t in tracks] == ["a.wav", "b.wav"]
    assert tracks[0].caption.count("\n") == 2


@pytest.mark.parametrize(("row", "line"), [(0, 2), (3, 5), (9, 11)])
def test_a_byte_that_is_no_utf_8_names_its_line(row: int, line: int, tmp_path: Path) -> None:
    rows = [_row(i).encode() for i in range(10)]
    rows[row] = _row(row, "café").encode("latin-1")
    path = tmp_path / "m.csv"
    path.write_bytes(b"path,role,caption\n" + b"".join(rows))
    with pytest.raises(ManifestError, match=rf"m\.csv, line {line}: not a UTF-8 CSV table \(byte 0xe9: .*in UTF-8"):
        read_manifest(path)


def test_a_bad_byte_far_down_and_half_a_character_of_utf_16_name_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(
        b"\xef\xbb\xbfpath,role\r\n" + b"".join(b"%d.wav,suspect\r\n" % i for i in range(9000)) + b"\xff,x\r\n"
    )
    with pytest.raises(ManifestError, match=r"m\.csv, line 9002: .*byte 0xff"):
        read_manifest(path)
    path.write_bytes("path,role\na.wav,suspect\nb".encode("utf-16") + b"\x00\xd8")
    with pytest.raises(ManifestError, match=r"m\.csv, line 3: not a UTF-8 CSV table"):
        read_manifest(path)


@pytest.mark.parametrize(
    "column", ["start_s", "end_s", "Start", "offset", "start_time", "clip_start", "onset_s", "from_ms", "end_seconds"]
)
def test_a_column_that_asks_for_a_part_of_a_file_is_refused_and_an_empty_one_is_not(
    column: str, tmp_path: Path
) -> None:
    table = _manifest(tmp_path, f"path,role,{column}\na.wav,suspect,\nb.wav,held_out,12.5\n", None)
    with pytest.raises(ManifestError, match=rf"a column '{column}' asks for a part of each file, and files are taken"):
        read_manifest(table)
    assert len(read_manifest(_manifest(tmp_path, f"path,role,{column}\na.wav,suspect,\nb.wav,held_out, \n", None))) == 2


@pytest.mark.parametrize("column", ["started", "endorsed", "from_label", "toss", "startle_s"])
def test_columns_that_only_begin_so_are_anybodys(column: str, tmp_path: Path) -> None:
    assert len(read_manifest(_manifest(tmp_path, f"path,role,{column}\na.wav,suspect,1\n", None))) == 1


@pytest.mark.parametrize("cell", ["1e30", "1e308", "1e999", "-1", "nan", "inf", "10000001"])
def test_a_length_that_no_recording_has_is_refused_with_its_line(cell: str, tmp_path: Path) -> None:
    table = _manifest(tmp_path, f"path,role,duration_s\na.wav,suspect,3\nb.wav,held_out,{cell}\n", None)
    with pytest.raises(ManifestError, match=rf"m\.csv, line 3: duration_s is '{cell}', expected seconds"):
        read_manifest(table)


@pytest.mark.parametrize(
    ("told", "there", "differs"),
    [(3.0, 3.0, False), (3.0, 3.9, False), (30.0, 180.0, True), (272.0, 30.0, True), (100.0, 104.9, False),
     (100.0, 106.0, True), (float("nan"), 5.0, False), (0.0, 5.0, True)],
)  # fmt: skip
def test_a_length_that_the_file_does_not_have_is_a_disagreement(told: float, there: float, differs: bool) -> None:
    track = Track("a", Path("a.wav"), "suspect", duration_s=told)
    said = disagreement(track, {"sha256": "x", "duration_s": there})
    assert bool(said) is differs
    if differs:
        assert f"says {told:.1f} s and the file holds {there:.1f} s" in said


def test_ids_and_paths_of_built_manifests_hold_no_apostrophes(tmp_path: Path) -> None:
    names = ["-0Gj8-vB1q4.wav", "=x.wav", "+y.wav", "@z.wav", "plain.wav"]
    rows = pd.DataFrame({"track_id": [n[:-4] for n in names], "path": names, "role": "suspect", "caption": "=cmd()"})
    write_csv(rows, tmp_path / "m.csv", bare=("track_id", "path"))
    text = (tmp_path / "m.csv").read_text()
    assert text.splitlines()[1] == "-0Gj8-vB1q4,-0Gj8-vB1q4.wav,suspect,'=cmd()"
    tracks = read_manifest(tmp_path / "m.csv")
    assert [t.path.name for t in tracks] == names
    assert [t.track_id for t in tracks] == [n[:-4] for n in names]
    assert {t.caption for t in tracks} == {"=cmd()"}
    guarded = _manifest(tmp_path, "track_id,path,role\n'-a,'-a.wav,suspect\n", None)  # as earlier versions wrote them
    assert [(t.track_id, t.path.name) for t in read_manifest(guarded)] == [("-a", "-a.wav")]
