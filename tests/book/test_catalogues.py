"""The manifest catalogue lists what lies there, and refuses a manifest that nobody vouches for."""

from __future__ import annotations

import pandas as pd
import pytest

from earwitness.book.catalogues import catalogue
from earwitness.data.manifest import read_manifest
from earwitness.errors import ManifestError


def test_every_committed_manifest_is_listed_and_resolves_for_each_of_its_targets(root):
    folder = root / "data_manifests"
    found = catalogue()
    listed = found["manifests"].set_index("manifest")
    assert set(listed.index) == {path.relative_to(folder).as_posix() for path in folder.rglob("*.csv")}
    assert (found["splits"].groupby("manifest")["tracks"].sum() <= listed["tracks"]).all()
    for (name, _), rows in found["targets"].groupby(["manifest", "model"]):
        truth = {row.role: row.splits.split(", ") for row in rows.itertuples()}  # whatever roles an audit gives them
        roles = pd.Series([track.role for track in read_manifest(folder / name, roles=truth, root=root)])
        assert roles.value_counts().to_dict() == rows.set_index("role")["tracks"].to_dict()


def test_a_manifest_without_a_card_is_refused(tmp_path):
    pd.DataFrame({"path": ["a.wav"], "role": ["suspect"]}).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(ManifestError, match=r"mine\.csv: expected a card beside it, found none; write mine\.card\.yml"):
        catalogue(tmp_path)


def test_artists_are_counted_where_they_are_named(tmp_path):
    for name, columns in (("with", {"artist": ["x", "x", "y"]}), ("without", {})):
        pd.DataFrame({"path": ["a.wav", "b.wav", "c.wav"], "role": ["suspect"] * 3, **columns}).to_csv(
            tmp_path / f"{name}.csv", index=False
        )
        (tmp_path / f"{name}.card.yml").write_text(
            f"title: {name}\nversion: 1\nlicence: CC0-1.0\ncitation: none\nmembership: by lot\n"
        )
    table = catalogue(tmp_path)["manifests"].set_index("title")
    assert table["artists"].to_dict() == {"with": 2, "without": 0}
    assert (table["tracks"] == 3).all()
    assert table["sha256"].str.fullmatch("[0-9a-f]{64}").all()
