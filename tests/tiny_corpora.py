"""Makers of small official files, each in its corpus's own format: column names, headings, separators, folders."""

from __future__ import annotations

import csv
import json
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Rows = Sequence[Sequence[object]]


def write(path: Path, rows: Rows, separator: str = ",", encoding: str = "utf-8") -> Path:
    """Write a table as corpora publish them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows(rows)
    return path


def sounds(folder: Path, names: Sequence[str], seconds: float = 0.05) -> None:
    """Write a short recording under each name, all different."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes((np.arange(int(8000 * seconds)) * (number + 1) % 1000).astype("<i2").tobytes())


def audiocaps(folder: Path) -> None:
    """12 training clips; 3 validation and 3 test clips of five captions; one of each has gone."""
    head = ["audiocap_id", "youtube_id", "start_time", "caption"]
    train = [[100 + i, f"-tr{i:02d}", 10 * i, f"A dog barks {'loudly ' * (i % 3)}then stops"] for i in range(12)]
    more = {
        part: [[n + 10 * i + k, f"{part}{i}", 30, f"{part} {i}, caption {k}, rain"] for i in range(3) for k in range(5)]
        for part, n in (("val", 1000), ("test", 2000))
    }
    write(folder / "dataset" / "train.csv", [head, *train])
    for part, rows in more.items():
        write(folder / "dataset" / f"{part}.csv", [head, *rows])
    sounds(folder / "audio", [f"Y-tr{i:02d}.wav" for i in range(11)])
    sounds(folder / "audio", ["val0_30.wav", "val1.wav", "2000.wav", "Ytest1.wav"], 0.07)


def clotho(folder: Path) -> None:
    """Two splits share a file name; the titles hold spaces and dots, the metadata are Latin-1."""
    for split, names in {"development": ["Radio Garble.wav", "a.b.wav"], "validation": ["v.wav"],
                         "evaluation": ["Radio Garble.wav", "e.wav"]}.items():  # fmt: skip
        write(folder / f"clotho_captions_{split}.csv", [["file_name", *(f"caption_{i}" for i in range(1, 6))]]
              + [[name, *(f"{split} {name} words number {i}" for i in range(5))] for name in names])  # fmt: skip
        head = ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]
        facts = [[n, "a;b", 7, f"https://freesound.org/s/{n}", "[0, 9]", "José", "http://creativecommons.org/licenses/by/3.0/"]
                 for n in names]  # fmt: skip
        write(folder / f"clotho_metadata_{split}.csv", [head, *facts], encoding="latin-1")
        sounds(folder / split, names)


def audioset(folder: Path) -> None:
    """The two small lists with their remarks; the unbalanced one is not there."""
    for name, videos in {"balanced_train_segments.csv": ["--aa", "bb"], "eval_segments.csv": ["cc"]}.items():
        remarks = (
            f"# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids={len(videos)}, num_segs={len(videos)}\n"
        )
        remarks += "# YTID, start_seconds, end_seconds, positive_labels\n"
        lines = "".join(f'{video}, 30.000, 40.000, "/m/09x0r,/m/05zppz"\n' for video in videos)
        (folder / name).write_text(remarks + lines)
    sounds(folder, ["Y--aa.wav", "bb_30.wav", "cc.wav"])


def musiccaps(folder: Path) -> None:
    """Four clips."""
    head = ["ytid", "start_s", "end_s", "audioset_positive_labels", "aspect_list", "caption", "author_id",
            "is_balanced_subset", "is_audioset_eval"]  # fmt: skip
    rows = [
        [f"m{i}", 30, 40, "/m/04rlf", "['jazz', 'slow']", f"A slow, sad tune {i}", 4, "False", str(i > 1)]
        for i in range(4)
    ]
    write(folder / "musiccaps-public.csv", [head, *rows])
    sounds(folder, ["m0.wav", "Ym1.wav", "m2_30.wav", "m3-[30-40].wav"])


def lakh(folder: Path) -> None:
    """Six files in FIGARO's lists, one of which has gone; folders are first digits, lists end without a new line."""
    from tests import tiny_midi

    names = {"train": ["1" + "a" * 31, "2" + "b" * 31, "f" * 32], "val": ["0" + "c" * 31]}
    names["test"] = ["9" * 32, "9" + "d" * 31]
    folder.mkdir(parents=True, exist_ok=True)
    for part, stems in names.items():
        (folder / f"{part}.txt").write_text("\n".join(f"{stem[0]}/{stem}.mid" for stem in stems))
        for number, stem in enumerate(stems):
            (folder / "lmd_full" / stem[0]).mkdir(parents=True, exist_ok=True)
            notes = [(480 * i, 480 * i + 400, 60 + i + number, 80) for i in range(4)]
            tiny_midi.write(folder / "lmd_full" / stem[0] / f"{stem}.mid", [(0, notes)])
    (folder / "lmd_full" / "f" / f"{names['train'][2]}.mid").unlink()


def maestro(folder: Path) -> None:
    """Four performances by two composers, in folders by year."""
    head = ["canonical_composer", "canonical_title", "split", "year", "midi_filename", "audio_filename", "duration"]
    splits = ["train", "train", "validation", "test"]
    rows = []
    for i, split in enumerate(splits):
        year, composer = 2004 + i, ["Bach", "Haydn"][i % 2]
        rows.append([composer, f"Sonata, Op. {i}", split, year, f"{year}/p{i}.midi", f"{year}/p{i}.wav", 100.0])
    write(folder / "maestro-v3.0.0.csv", [head, *rows])
    sounds(folder, [f"{2004 + i}/p{i}.wav" for i in range(4)])


def jamendo(folder: Path) -> None:
    """Three tracks; tags run over several cells, a title holds a single quotation mark."""
    head = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
    facts = ["TRACK_ID\tARTIST_ID\tALBUM_ID\tTRACK_NAME\tARTIST_NAME\tALBUM_NAME\tRELEASEDATE\tURL"]
    ledger = []
    for i, part in enumerate(("train", "validation", "test")):
        number = 214 + i
        row = [f"track_{number:07d}", f"artist_{i:06d}", "album_000031", f"{number % 100:02d}/{number}.mp3", 124.6]
        for other in (0, 1):
            write(folder / "data" / "splits" / f"split-{other}" / f"autotagging-{part}.tsv",
                  [head, [*row, "genre---punkrock", "mood/theme---sad"]], "\t")  # fmt: skip
        told = [
            "album_000031",
            'The 12" mix',
            "Ann",
            "One",
            f"2006-05-0{i + 1}",
            f"http://www.jamendo.com/track/{number}",
        ]
        facts.append("\t".join([*row[:2], *told]))
        ledger.append(f"{row[3]}\nTrack by Ann from Jamendo: http://www.jamendo.com/track/{number}\n"
                      "Available under a Creative Commons Attribution license: "
                      "http://creativecommons.org/licenses/by/3.0/\n")  # fmt: skip
    (folder / "data" / "raw.meta.tsv").write_text("\n".join(facts) + "\n")
    (folder / "audio_licenses.txt").write_text("\n".join(ledger))
    sounds(folder / "audio", ["14/214.wav", "15/215.low.wav", "16/216.wav"])


BY, NC = "http://creativecommons.org/licenses/by/3.0/", "http://creativecommons.org/licenses/by-nc/3.0/"
ZERO = "http://creativecommons.org/publicdomain/zero/1.0/"


def fsd50k(folder: Path) -> None:
    """Six clips of the development set, three of the evaluation set."""
    truth, told = folder / "FSD50K.ground_truth", folder / "FSD50K.metadata"
    dev = [[64760 + i, "Dog,Animal", "/m/0bt9lr", "val" if i == 5 else "train"] for i in range(6)]
    write(truth / "dev.csv", [["fname", "labels", "mids", "split"], *dev])
    write(truth / "eval.csv", [["fname", "labels", "mids"], *([900 + i, "Rain", "/m/06mb1"] for i in range(3))])
    told.mkdir(parents=True, exist_ok=True)
    for part, ids in (("dev", range(64760, 64766)), ("eval", range(900, 903))):
        told_of = {"description": "a dog", "tags": ["dog"]}
        facts = {
            str(n): told_of | {"title": f"dog {n}.wav", "license": (BY, NC, ZERO)[n % 3], "uploader": f"u{n % 2}"}
            for n in ids
        }
        (told / f"{part}_clips_info_FSD50K.json").write_text(json.dumps(facts))
        sounds(folder / f"FSD50K.{part}_audio", [f"{n}.wav" for n in ids])


def freesound_sao(folder: Path) -> None:
    """FSD50K, and a list that holds three of its clips and two others."""
    fsd50k(folder)
    rows = [[n, f"dog {n}.wav", "u0", BY, f"https://freesound.org/s/{n}/"] for n in (64760, 64761, 900, 11, 12)]
    write(folder / "freesound_dataset_attribution2.csv", [["id", "title", "author", "license", "url"], *rows])


LICENCES = (
    "Attribution",
    "CC0 1.0 Universal",
    "Attribution-NonCommercial 3.0 International",
    "",
    "Attribution-Share Alike",
)


def fma_sao(folder: Path) -> None:
    """Ten tracks by two artists under a heading of two lines and a line with the index's name."""
    groups = ["", "album", "artist", "set", "track", "track", "track", "track"]
    names = ["", "title", "name", "split", "date_created", "duration", "license", "title"]
    rows = [[i + 2, "First", ["Ann", "Bo"][i % 2], "training", "2008-11-26 01:48:12", 168, LICENCES[i % 5], f"Food {i}"]
            for i in range(10)]  # fmt: skip
    write(folder / "fma_metadata" / "tracks.csv", [groups, names, ["track_id", *[""] * 7], *rows])
    rows = [[i, "Food", "Ann", "CC BY", "https://freemusicarchive.org/x"] for i in (2, 3, 999)]
    write(folder / "fma_dataset_attribution2.csv", [["id", "title", "author", "license", "url"], *rows])
    sounds(folder / "fma_full", [f"000/{i + 2:06d}.wav" for i in range(10)])


MAKERS: dict[str, Callable[[Path], None]] = {
    "audiocaps": audiocaps, "audiocaps-paper": audiocaps, "audioset": audioset, "clotho": clotho, "fma-sao": fma_sao,
    "freesound-sao": freesound_sao, "fsd50k": fsd50k, "lakh": lakh, "maestro": maestro, "mtg-jamendo": jamendo,
    "musiccaps": musiccaps,
}  # fmt: skip
