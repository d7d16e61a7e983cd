"""What is no recording of its own is passed over and counted by kind; what is not on this disk is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from earwitness.data import folders
from earwitness.data.folders import CLOUD, FIRST, SHARED, gather, passed_over, read_folders, scan, shorten
from earwitness.errors import ManifestError


def _put(folder: Path, *names: str, content: bytes = b"RIFF") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _kept(folder: Path) -> list[str]:
    return [entry.name for entry in scan(folder) if entry.kind == "recording" and not entry.reason]


def _over(folder: Path) -> dict[str, int]:
    return passed_over(scan(folder))


@pytest.mark.parametrize(
    "name",
    [
        "#recycle", "@Recycle", "$RECYCLE.BIN", "RECYCLER", "Trash", ".Trash", ".Trash-1000", "Trash-0", ".Trashes",
        ".stversions", "#snapshot", ".dropbox.cache", "@Recently-Snapshot",
    ],
)  # fmt: skip
def test_what_was_deleted_is_passed_over_and_counted_wherever_the_bin_stands(name: str, tmp_path: Path) -> None:
    _put(tmp_path, "a.wav", f"{name}/b.wav", f"{name}/old takes/c.flac", f"{name}/notes.txt", f"in/{name}/d.mid")
    assert _kept(tmp_path) == ["a.wav"]
    assert _over(tmp_path) == {f"in a recycle bin ({name})": 3}


def test_names_that_only_begin_like_a_bin_are_albums(tmp_path: Path) -> None:
    _put(tmp_path, "Trash Talk/a.wav", "trashed/b.wav", "Recycle/c.wav", "Trash.wav", "recycled songs/d.wav")
    assert len(_kept(tmp_path)) == 5
    assert _over(tmp_path) == {}


PROJECTS = {
    "Song One.logicx": ("Song One.logicx/Media/Audio Files/a.wav", "Song One.logicx/Media/Freeze Files.nosync/b.aif"),
    "Song Two.band": ("Song Two.band/Media/Audio Files/a.wav",),
    "Song Three Project": ("Song Three Project/Samples/Processed/Freeze/a.wav", "Song Three Project/Song.als"),
    "Session": ("Session/Session.ptx", "Session/Audio Files/a_01.wav", "Session/Fade Files/f.wav"),
    "Cubase": ("Cubase/song.cpr", "Cubase/Audio/a.wav", "Cubase/Edits/b.wav"),
    "Reaper": ("Reaper/song.rpp", "Reaper/Media/a.wav"),
    "Fruity": ("Fruity/song.flp", "Fruity/Samples/a.wav"),
    "Studio": ("Studio/song.song", "Studio/Media/a.wav"),
    "Audacity": ("Audacity/song.aup", "Audacity/song_data/e00/d00/e0001.au"),
    "Ardour": ("Ardour/song.ardour", "Ardour/interchange/song/audiofiles/a.wav"),
}


@pytest.mark.parametrize("project", PROJECTS)
def test_the_clips_of_a_project_are_passed_over_and_named(project: str, tmp_path: Path) -> None:
    _put(tmp_path, "mix.wav", *PROJECTS[project])
    assert _kept(tmp_path) == ["mix.wav"]
    clips = [name for name in PROJECTS[project] if name.endswith((".wav", ".aif", ".au"))]
    assert _over(tmp_path)[f"in a project ({project})"] == len(clips)


def test_a_mix_beside_a_project_and_folders_without_a_project_stay(tmp_path: Path) -> None:
    _put(tmp_path, "Song/Song.als", "Song/Song mix.wav", "Audio Files/a.wav", "Samples/b.wav", "My Project/Audio/c.wav")
    assert _kept(tmp_path) == ["Audio Files/a.wav", "My Project/Audio/c.wav", "Samples/b.wav", "Song/Song mix.wav"]


def test_sidecars_are_passed_over_by_kind(tmp_path: Path) -> None:
    names = ("a.wav.asd", "a.wav.reapeaks", "a.pk", "._a.wav", ".DS_Store", "Thumbs.db", "@eaDir/a.wav/x.jpg")
    _put(tmp_path, "a.wav", "cover.jpg", ".hidden.wav", "desktop.ini", *names)
    assert _kept(tmp_path) == ["a.wav"]
    assert _over(tmp_path) == {".jpg": 1, "hidden": 2, "sidecars": len(names)}


PLACEHOLDERS = {
    ".01 Song.m4a.icloud": "01 Song.m4a", "b.flac.nextcloud": "b.flac", "c.mp3.owncloud": "c.mp3",
    "d.wav.cloud": "d.wav", "deep/.e.mid.icloud": "deep/e.mid",
}  # fmt: skip


def test_music_that_is_in_the_cloud_only_is_named(tmp_path: Path) -> None:
    _put(tmp_path, "a.wav", *PLACEHOLDERS, ".notes.pdf.icloud")
    found = {entry.name: entry.reason for entry in scan(tmp_path) if entry.kind == "recording"}
    assert found == {"a.wav": "", **dict.fromkeys(PLACEHOLDERS.values(), CLOUD)}
    assert _over(tmp_path) == {".icloud": 1}


def test_a_file_without_content_here_is_in_the_cloud_or_empty(tmp_path: Path) -> None:
    _put(tmp_path, "a.wav")
    _put(tmp_path, "empty.wav", content=b"")
    with (tmp_path / "hole.wav").open("wb") as file:
        file.truncate(1 << 40)  # a length of a terabyte, and no place on disk
    reasons = {entry.name: entry.reason for entry in scan(tmp_path)}
    assert reasons["a.wav"] == ""
    assert reasons["empty.wav"].startswith("0 bytes")
    assert reasons["hole.wav"] == CLOUD


def test_a_drive_that_counts_no_blocks_keeps_its_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network drives say that every file takes no place: what does not read as zeros is there."""
    _put(tmp_path, "a.wav")
    real = Path.stat

    def stat(self: Path, **how: bool) -> object:
        found = real(self, **how)  # type: ignore[arg-type]
        return type("Stat", (), {"st_size": found.st_size, "st_blocks": 0, "st_mode": found.st_mode})

    monkeypatch.setattr(Path, "stat", stat)
    assert folders._elsewhere(tmp_path / "a.wav") == ""
    _put(tmp_path, "b.wav", content=bytes(100))
    assert folders._elsewhere(tmp_path / "b.wav") == CLOUD


@pytest.mark.parametrize("name", ["a.mp3.part", "b.flac.crdownload", "c.wav.download/c.wav", "d.m4a.!qb"])
def test_a_download_that_is_not_finished_is_named(name: str, tmp_path: Path) -> None:
    _put(tmp_path, "z.wav", name)
    left = [entry for entry in scan(tmp_path) if entry.reason]
    assert [entry.reason for entry in left] == ["a download that is not finished; finish it first"]
    assert left[0].name == Path(name).parts[0].rpartition(".")[0]


def test_the_same_song_here_and_in_the_cloud_has_two_ids(tmp_path: Path) -> None:
    _put(tmp_path, "s/a.m4a", "s/.a.m4a.icloud", "h/b.wav")
    found = gather(suspects=tmp_path / "s", held_out=tmp_path / "h")
    ids = [track.track_id for track in found.tracks] + found.refused["track_id"].tolist()
    assert len(ids) == len(set(ids)) == 3


def test_a_folder_of_nothing_but_what_is_passed_over_says_what_it_holds(tmp_path: Path) -> None:
    _put(tmp_path, "s/#recycle/a.wav", "s/readme.txt", "h/b.wav")
    with pytest.raises(
        ManifestError, match=r"no audio file in it \(passed over: \.txt 1, in a recycle bin \(#recycle\)"
    ):
        gather(suspects=tmp_path / "s", held_out=tmp_path / "h")


@pytest.mark.parametrize("blank", ["", " "])
def test_an_empty_text_is_no_folder(blank: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="suspects: expected a folder, got an empty text"):
        read_folders(suspects=blank, held_out=tmp_path)
    with pytest.raises(ManifestError, match="held_out: expected a folder, got an empty text"):
        read_folders(suspects=tmp_path, held_out=blank)


def test_a_bin_does_not_hide_what_a_link_leads_to(tmp_path: Path) -> None:
    _put(tmp_path, "album/a.wav")
    (tmp_path / "#recycle").mkdir()
    (tmp_path / "#recycle" / "back").symlink_to(tmp_path / "album")
    assert _kept(tmp_path) == ["album/a.wav"]


def test_of_a_reason_that_very_many_share_the_first_few_are_shown_with_their_number() -> None:
    rows = [(f"t{i}", "no such file") for i in range(100_000)] + [("odd", "silent")]
    rows += [(f"u{i}", "cut short") for i in range(SHARED)]
    shown = shorten(pd.DataFrame(rows, columns=["track_id", "reason"]))
    assert len(shown) == FIRST + 1 + 1 + SHARED
    (told,) = [name for name in shown["track_id"] if name.startswith("and ")]
    assert told == "and 99,995 more, 100,000 in all (the JSON lists each)"
    assert shown["track_id"][:FIRST].tolist() == [f"t{i}" for i in range(FIRST)]
    assert shorten(pd.DataFrame(columns=["track_id", "reason"])).empty
