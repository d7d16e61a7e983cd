"""The manifest's schema: published, documented, enforced column by column; strict reading; files missing or corrupt."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from earwitness.data.csv_table import read_table
from earwitness.data.manifest import ROLES, CorpusCard, Row, checked, holdings, read_manifest, read_splits, schema_texts
from earwitness.errors import ManifestError
from earwitness.types import Track
from tests.tiny import SAMPLE, sample_audio


def test_the_schemas_are_published_and_the_page_documents_every_column(root: Path) -> None:
    for name, text in schema_texts().items():
        assert (root / "book" / "_static" / name).read_text() == text, (
            "run: python -m earwitness.data.manifest book/_static"
        )
        assert json.loads(text)["title"].endswith("version 1")
    page = (root / "book" / "methods" / "manifests.md").read_text()
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in page.splitlines() if line.startswith("| `")]
    documented = {name for names in rows for name in names}
    assert set(Row.model_fields) <= documented
    assert {name for name, field in CorpusCard.model_fields.items() if field.is_required()} <= documented


def test_the_sample_manifest_reads_whole(tmp_path: Path) -> None:
    tracks = read_manifest(SAMPLE, target="tiny/model", root=sample_audio(tmp_path))
    assert [(t.track_id, t.role, t.duration_s) for t in tracks] == [
        ("s0", "member", 2.0), ("s1", "member", 3.0), ("s2", "nonmember", 4.0), ("s3", "nonmember", 5.0),
        ("s4", "nonmember", 6.0),
    ]  # fmt: skip
    assert tracks[1].caption == "a dog barks, twice"
    assert tracks[2].caption == '"slow" piano'
    assert tracks[0].path == tmp_path / "album-0" / "0.wav"
    assert {f.name for f in Track.__dataclass_fields__.values()} == set(Row.model_fields)


def test_a_missing_file_is_not_a_corrupt_one(tmp_path: Path) -> None:
    tracks = read_splits(SAMPLE, root=sample_audio(tmp_path))
    assert holdings(tracks).good == tuple(f"s{i}" for i in range(6))
    tracks[1].path.unlink()
    tracks[2].path.write_bytes(tracks[2].path.read_bytes()[:-1])
    tracks[3].path.unlink()
    tracks[3].path.mkdir()
    tracks[4] = Track("s4", tracks[4].path, "")
    found = holdings(tracks)
    assert (found.missing, found.corrupt, found.unhashed) == (("s1",), ("s2",), ("s4",))
    assert list(found.unreadable) == ["s3"]
    assert found.good == ("s0", "s5")
    assert not found.sound
    assert holdings(tracks[:2]).sound  # links die: that is a fact, not a fault


@pytest.mark.parametrize(
    ("name", "cells", "bad"),
    [
        ("sha256", ["", "a" * 64, "A" * 64], -1),
        ("sha256", ["a" * 63], 0),
        ("sha256", ["g" * 64], 0),
        ("released", ["", "2019", "2019-05", "2019-12-31"], -1),
        ("released", ["2019-1"], 0),
        ("released", ["2019-13"], 0),
        ("released", ["2019-02-00"], 0),
        ("released", ["01/05/2019"], 0),
        ("released", ["2019-05-01T00:00"], 0),
        ("released", ["٢٠١٩"], 0),
        ("duration_s", [None, "2.5", "0"], -1),
        ("duration_s", ["1", "-1"], 1),
        ("duration_s", ["1", "inf"], 1),
        ("duration_s", ["nan"], 0),
        ("role", [*ROLES], -1),
        ("role", ["member", "Member"], 1),
        ("path", ["a", ""], 1),
        ("artist", ["", "x"], -1),
    ],
)  # fmt: skip
def test_columns_are_held_to_the_schema(name: str, cells: list[Any], bad: int) -> None:
    assert checked(name, cells)[1] == bad


ROWS = "path,role,sha256,duration_s\na.wav,suspect,,1\nb.wav,suspect,{},{}\n"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("xyz", "1"), "line 3: a sha256 that is not 64 hexadecimal digits .'xyz'"),
        (("", "-2"), "line 3: duration_s is '-2', expected seconds .*greater than or equal to 0"),
        (("", "inf"), "line 3: duration_s is 'inf', expected seconds .*finite"),
    ],
)
def test_a_bad_cell_is_named_with_its_line(tmp_path: Path, cells: tuple[str, str], message: str) -> None:
    (tmp_path / "m.csv").write_text(ROWS.format(*cells))
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path / "m.csv")


def test_a_hash_in_capitals_is_the_same_hash(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(ROWS.format("AB" * 32, "1"))
    assert [track.sha256 for track in read_manifest(tmp_path / "m.csv")] == ["", "ab" * 32]


def test_a_file_whose_name_holds_a_backslash_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,role\na\\b.wav,suspect\n")
    with pytest.raises(ManifestError, match=r'm.csv, line 2: a path with backslashes \("a\\b.wav"\): use "/" between'):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "a\\b.wav").write_bytes(b"")
    assert read_manifest(tmp_path / "m.csv")[0].path == tmp_path / "a\\b.wav"


def test_lines_are_counted_over_breaks_blank_lines_and_left_out_splits(tmp_path: Path) -> None:
    text = 'path,split,caption\n\na.wav,x,"two\nlines"\nb.wav,other,\n\n,x,\n'
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ManifestError, match=r"m.csv, line 7: an empty path"):
        read_manifest(tmp_path / "m.csv", roles={"suspect": ["x"]})


def test_links_are_looked_for_in_every_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.wav").write_bytes(b"")
    base = tmp_path / "in"
    (base / "a").mkdir(parents=True)
    (base / "a" / "x.wav").symlink_to(tmp_path / "out" / "x.wav")
    (base / "a" / "y.wav").symlink_to(base / "real.wav")
    (base / "real.wav").write_bytes(b"")
    (base / "b").symlink_to(tmp_path / "out")
    led_out = ("a/x.wav", "b/x.wav", "a/../../out/x.wav", str(tmp_path / "out" / "x.wav"))
    for path in ("a/y.wav", "real.wav", "gone/z.wav", "a..b.wav", *led_out):
        (tmp_path / "m.csv").write_text(f"path,role\nfirst.wav,suspect\n{path},suspect\n")
        if path in led_out:
            with pytest.raises(ManifestError, match="line 3: a path that leaves the audio folder"):
                read_manifest(tmp_path / "m.csv", root=base)
        else:
            assert len(read_manifest(tmp_path / "m.csv", root=base)) == 2


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6), separator=st.sampled_from(",;\t"))
def test_what_csv_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], separator: str
) -> None:
    """The fast reader against Python's own, for whatever stands in the cells."""
    path = tmp_path_factory.mktemp("csv") / "m.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([("path", "b", "c"), *((f"x{a}", b, c) for a, b, c in rows)])
    cells, lines = read_table(path)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file, delimiter=separator)
        slow = [(row, reader.line_num) for row in reader][1:]
    unguarded = [
        [c[1:] if c[:1] == "'" and c[1:2] in "=+-@\t＝＋－＠" and c[1:] else c for c in row] for row, _ in slow
    ]
    assert [list(row.values()) for row in cells.to_pylist()] == unguarded
    assert [lines.of(i) for i in range(len(rows))] == [line for _, line in slow]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=2), "schema_version"),
        (lambda c: c["targets"]["tiny/model"].update(member=["trian"]), "names a split 'trian'"),
        (lambda c: c["sources"].update({"other/model": "x"}), "'other/model' is no target"),
        (lambda c: c["targets"].update({"m": {"trained": ["train"]}}), "targets.m.trained"),
        (lambda c: c.pop("licence"), "licence"),
        (lambda c: c.update(colour="red"), "colour"),
    ],
)
def test_a_wrong_card_is_refused(change: Any, message: str) -> None:
    card = yaml.safe_load(SAMPLE.with_suffix(".card.yml").read_text())
    CorpusCard.model_validate(card)
    change(card)
    with pytest.raises(ValidationError, match=message):
        CorpusCard.model_validate(card)
