"""What strangers may do with a report: pictures and texts that forge, links and pipes, records made to hang, crashes.

The report under test is made from the scores of an older one, so that no model is run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from earwitness import figures, util
from earwitness.audit import html
from earwitness.audit import plan as plans
from earwitness.audit import report as reports
from earwitness.audit.report import PAGE, PRINT, RECORD, UNFINISHED, Picture, check_place
from earwitness.audit.report import read as read_report
from earwitness.audit.verify import UNCHECKED, _pictures, _tried, verify
from earwitness.cli import app
from earwitness.errors import InputError, UncheckableError
from earwitness.util import sha256

OLDER = Path(__file__).resolve().parents[1] / "older" / "201bafe" / "report"
HOSTILE = (
    "<svg onload=alert(1)>|**x**|[a](javascript:1)|\u202eecnedive\u202c|\x1b[31m|\r\n|</style><meta http-equiv=refresh>"
)


def with_pictures(record, files):
    """Add the four pictures that an audit draws, of noise."""
    known = sorted(
        (row for row in record.recordings if row.role == "suspect"), key=lambda row: (-row.scores[0], row.number)
    )
    rng, shown = np.random.default_rng(0), []
    for row, label in zip((*known[:2], *known[-2:]), ("strongest",) * 2 + ("weakest",) * 2, strict=True):
        numbers = figures.numbers_of_sound(rng.normal(size=8000).astype(np.float32), 16_000, rng.random(20))
        own = {kind: f"pictures/{row.number}.{kind}" for kind in ("svg", "json")}
        files |= {own["json"]: numbers, own["svg"]: figures.from_numbers(numbers, row.number).svg.encode()}
        shown.append(Picture(number=row.number, label=label, picture=own["svg"], numbers=own["json"]))
    return record.model_copy(update={"pictures": shown}), files


def sealed(record, files):
    hashes = {name: sha256(content) for name, content in sorted(files.items())}
    return record.model_copy(update={"repeat": record.repeat.model_copy(update={"files": hashes})})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A whole report of version 2, with pictures and a name of every unpleasant kind."""
    record, files = with_pictures(*read_report(OLDER))
    named = [row.model_copy(update={"name": f"{HOSTILE}{i}"}) for i, row in enumerate(record.recordings)]
    whose = {"layout": 2, "earwitness": "1", "by": HOSTILE[:200], "made_for": "somebody"}
    record = record.model_copy(update={"schema_version": 2, "redacted": False, "recordings": named, **whose})
    record = sealed(record, files)
    out = tmp_path_factory.mktemp("made") / "report"
    assert reports.write(record, files, html.page(record, files), out) is None
    return out


@pytest.fixture
def made(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "report"))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edited(out, change):
    data = json.loads((out / RECORD).read_text())
    change(data)
    (out / RECORD).write_text(json.dumps(data))


def redone(out):
    """Make hashes and page follow from what lies there, as a forger would."""
    edited(
        out, lambda d: d["repeat"]["files"].update({n: sha256((out / n).read_bytes()) for n in d["repeat"]["files"]})
    )
    (out / PAGE).write_bytes(html.page(*read_report(out)).encode())


def test_a_whole_report_is_consistent(made):
    found = verify(made)
    assert found.consistent, found.lines
    assert found.lines[0].endswith("not the defaults: permutations 199 (9999), deals 5 (500)")
    assert "that scores belong to the listed recordings, that stored signals are genuine" in UNCHECKED
    assert UNCHECKED in found.lines


# ---- pictures and texts


def test_the_page_holds_its_pictures_as_images_and_one_style_that_is_named(made):
    text = (made / PAGE).read_text()
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1])
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    seal = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{seal}'; img-src data:;")
    assert "unsafe" not in policy
    assert "script" not in policy
    assert "<svg" not in text
    assert " style=" not in text
    images = re.findall(r'<img src="data:image/svg\+xml;base64,([\w+/=]+)" alt="([^"]+)">', text)
    assert len(images) == 5
    assert all(b"prefers-color-scheme: dark" in base64.b64decode(image) for image, _ in images)
    assert {alt.partition(" of ")[0] for _, alt in images[1:]} == {"Spectrogram"}


def test_text_from_outside_does_nothing_in_the_page(made):
    text = (made / PAGE).read_text()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b\r]", text)
    assert "onload=alert" not in re.sub(r"&lt;.*?&gt;", "", text)
    assert "&lt;svg onload=alert(1)&gt;|**x**|[a](javascript:1)|\\u202eecnedive\\u202c|\\x1b[31m|\\r\\n|" in text


@pytest.mark.parametrize(
    "field",
    [
        lambda d: d["results"][0].update(model=HOSTILE),
        lambda d: d["results"][0].update(design=HOSTILE),
        lambda d: d.update(made=HOSTILE),
        lambda d: d["exclusions"].append({"name": HOSTILE, "role": HOSTILE, "reason": HOSTILE}),
        lambda d: d["duplicates"].append(HOSTILE),
        lambda d: d["imbalances"].append(HOSTILE),
        lambda d: d["testable"]["mends"].append(HOSTILE),
        lambda d: d["repeat"].update(command=HOSTILE, machine=HOSTILE, code=HOSTILE, versions={HOSTILE: HOSTILE}),
        lambda d: d["suspects"].update(formats={HOSTILE: 3}),
        lambda d: d["frozen"].update(checked=True, frozen_at=HOSTILE, file_sha256=HOSTILE),
        lambda d: d["results"][0].update(control={"name": HOSTILE, "revision": HOSTILE, "known_from": HOSTILE}),
    ],
)
def test_every_text_of_a_record_is_only_text(made, field):
    edited(made, field)
    record, files = read_report(made)
    page = html.page(record, files)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b\r]", page)
    tags = {tag.lower() for tag in re.findall(r"<([a-zA-Z]+)[ >]", page)}
    known = {tag.lower() for tag in re.findall(r"<([a-zA-Z]+)[ >]", (made / PAGE).read_text())} | {"h3"}
    assert tags <= known
    assert page.count("<meta ") == 4


FORGERIES = {
    "a style": lambda svg: svg.replace(b"<defs>", b"<style>.word{font-size:0}</style><defs>", 1),
    "a refresh": lambda svg: b'<meta http-equiv="refresh" content="0;url=https://example.org">' + svg,
    "a handler": lambda svg: svg.replace(b"<g>", b'<g onclick="alert(1)">', 1),
    "a link": lambda svg: svg.replace(b"<g>", b'<a href="https://example.org">', 1),
    "a foreign object": lambda svg: svg.replace(b"</svg>", b"<foreignObject><p>Evidence</p></foreignObject></svg>"),
    "an animation": lambda svg: svg.replace(b"</svg>", b'<animate attributeName="x"/></svg>'),
    "a picture that moves": lambda svg: svg.replace(b"<svg ", b'<svg style="position: fixed; top: 0" ', 1),
    "a picture that is moved": lambda svg: svg.replace(b"<svg ", b'<svg transform="translate(0 -900)" ', 1),
    "a class": lambda svg: svg.replace(b"<svg ", b'<svg class="answer evidence" ', 1),
    "an address": lambda svg: svg.replace(b"<g>", b'<image xlink:href="https://example.org/x.png"/><g>', 1),
    "an address in a style": lambda svg: svg.replace(b"fill: none", b"fill: url(https://example.org/#x)", 1),
    "an end of the picture": lambda svg: svg.replace(b"</svg>", b"</svg></figure><p class='word'>Evidence</p>"),
    "other words": lambda svg: svg.replace(b"time (s)", b"Evidence", 1),
    "a moved line": lambda svg: re.sub(rb"L \d+\.\d+", b"L 5.0", svg, count=1),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_picture_that_its_numbers_do_not_give_is_named(made, forgery):
    name = next(iter(sorted(n for n in contents(made) if n.endswith(".svg"))))
    before = (made / name).read_bytes()
    (made / name).write_bytes(FORGERIES[forgery](before))
    assert (made / name).read_bytes() != before
    assert list(_pictures(*read_report(made))) == [f"{name}: is not what its numbers give"]
    assert html.only_shapes(before.decode())
    harmless = forgery in {"other words", "a moved line"}
    assert html.only_shapes((made / name).read_text()) == harmless
    if forgery == "a style":
        redone(made)
        assert verify(made).lines[1] == f"{name}: is not what its numbers give"


def test_a_picture_of_the_first_version_holds_shapes_only(tmp_path):
    """Such a page holds its pictures themselves, so none may reach beyond its frame."""
    record, files = with_pictures(*read_report(OLDER))
    shown = [item.model_copy(update={"numbers": ""}) for item in record.pictures]
    files = {name: content for name, content in files.items() if not name.endswith(".json")}
    record = sealed(record.model_copy(update={"pictures": shown}), files)
    out = tmp_path / "report"
    reports.write(record, files, html.page(record, files), out)
    assert verify(out).consistent, verify(out).lines
    assert (out / PAGE).read_text().count("<svg ") == 5
    name = shown[0].picture
    (out / name).write_bytes(FORGERIES["a style"]((out / name).read_bytes()))
    redone(out)
    assert verify(out).lines[1] == f"{name}: holds more than a drawing"
    assert (out / PAGE).read_text().count("<svg ") == 4


@pytest.mark.parametrize("left", [0, 3])
def test_pictures_that_are_gone_are_noticed(made, left):
    def drop(data):
        for item in data["pictures"][left:]:
            for name in (item["picture"], item["numbers"]):
                data["repeat"]["files"].pop(name)
                (made / name).unlink()
        del data["pictures"][left:]

    edited(made, drop)
    redone(made)
    assert verify(made).lines[1] == f"4 suspects are to be shown, {left} are"


def test_numbers_that_draw_no_picture_are_named(made):
    name = next(n for n in sorted(contents(made)) if n.startswith("pictures/") and n.endswith(".json"))
    record, files = read_report(made)
    for content in (b"[]", b"{}", b'{"levels": [], "seconds": 1, "top_khz": 4, "surprise": []}', b"\xff"):
        (found,) = _tried(_pictures(record, files | {name: content}), "the pictures cannot be drawn again")
        assert found.startswith("the pictures cannot be drawn again (")


# ---- writing touches nothing but the report


def again(out):
    record, files = read_report(OLDER)
    record, files = with_pictures(record, files)
    record = sealed(record.model_copy(update={"schema_version": 2, "redacted": False}), files)
    return reports.write(record, files, html.page(record, files), out), {*files, PAGE, RECORD}


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    for name in ("scores-1.csv", "report.html", "report.json", "report.pdf", "deep/T001.svg", "precious.txt"):
        (folder / name).write_text("mine")
    return folder


@pytest.mark.parametrize("name", ["scores-1.csv", PAGE, PRINT, "notes", "pictures/T900.svg"])
def test_links_in_an_earlier_report_lead_to_nothing_that_is_touched(made, outside, name):
    (made / name).unlink(missing_ok=True)
    (made / name).symlink_to(outside / "precious.txt")
    before = contents(outside)
    again(made)
    assert contents(outside) == before
    assert not (made / PAGE).is_symlink()
    assert verify(made).consistent


@pytest.mark.parametrize("name", ["pictures", "audio", "more"])
def test_linked_folders_in_an_earlier_report_are_not_entered(made, outside, name):
    if (made / name).is_dir():
        shutil.rmtree(made / name)
    (made / name).symlink_to(outside / "deep")
    before = contents(outside)
    kept, wanted = again(made)
    assert kept is None
    assert contents(outside) == before
    assert wanted <= contents(made).keys()
    assert verify(made).consistent


def test_a_report_folder_that_is_a_link_is_refused(made, outside, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(made)
    before = contents(made)
    with pytest.raises(InputError, match=r"link: a link, and nothing is written through links; name the folder it"):
        check_place(link)
    with pytest.raises(InputError, match="link: a link"):
        again(link)
    assert contents(made) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda d, o: d["repeat"]["files"].update({"../outside/precious.txt": "0"}),
        lambda d, o: d["repeat"]["files"].update({str(o / "precious.txt"): "0"}),
        lambda d, o: d["repeat"]["files"].update({"notes.txt": "0"}),
        lambda d, o: d["repeat"]["files"].update({"pictures/../../outside/precious.txt": "0"}),
        lambda d, o: d["repeat"]["files"].update({"scores-1.csv\n": "0"}),
    ],
)
def test_a_record_that_names_other_files_makes_no_report(made, outside, change):
    (made / "notes.txt").write_text("mine")
    edited(made, lambda d: change(d, outside))
    before = contents(made.parent)
    with pytest.raises(InputError, match="not empty and no report of this version; choose a new folder"):
        again(made)
    assert contents(made.parent) == before
    with pytest.raises(UncheckableError, match="names a file outside the report"):
        verify(made)


def test_a_forged_list_of_unfinished_files_removes_nothing(made, outside, tmp_path):
    (made / UNFINISHED).write_text("../outside/precious.txt\nnotes.txt\nreport.pdf")
    (made / "notes.txt").write_text("mine")
    before = contents(outside)
    again(made)
    assert contents(outside) == before
    assert (made / "notes.txt").read_text() == "mine"
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / UNFINISHED).write_text("../outside/precious.txt")
    with pytest.raises(InputError, match="not empty and no report"):
        again(empty)
    assert contents(outside) == before


def test_what_is_not_of_the_report_stays_and_what_collides_is_kept_beside_it(made):
    mine = {"notes.txt", "scores-7.csv", "pictures/me.svg", "deep/er/x", "pictures/T999.svg"}
    for name in (*mine, "audio/x"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text("mine")
    shown = next(n for n in contents(made) if n.startswith("pictures/T") and n not in mine)
    edited(made, lambda d: d["repeat"]["files"].pop(shown))  # by its record, this one is not of the report
    edited(made, lambda d: d.update(pictures=[item for item in d["pictures"] if item["picture"] != shown]))
    (made / shown).write_text("mine too")
    kept, _ = again(made)
    assert {name for name, content in contents(made).items() if content == b"mine"} == mine | {"audio/x"}
    assert kept == made.with_name("report.kept-1")
    assert contents(kept) == {shown: b"mine too"}
    assert verify(made).consistent
    assert sorted(path.name for path in made.parent.iterdir()) == ["report", "report.kept-1"]


@pytest.mark.parametrize("swap", [True, False], ids=["exchanged", "in two steps"])
@pytest.mark.parametrize("moment", [1, 13, 24, 25, 26, 27, 28, 29])
def test_whatever_interrupts_the_writing_leaves_a_whole_report(made, monkeypatch, moment, swap):
    """Stopped before or after a file, a rename, the exchange: the folder is the earlier report, or the new one."""
    before, calls = contents(made), []
    if not swap:
        monkeypatch.setattr(util.ctypes, "CDLL", lambda _: object())

    def stops(real):
        def call(*given, **more):
            calls.append(real)
            if len(calls) == moment:
                raise KeyboardInterrupt
            found = real(*given, **more)
            calls.append(real)
            if len(calls) == moment:
                raise KeyboardInterrupt
            return found

        return call

    monkeypatch.setattr(Path, "replace", stops(Path.replace))
    monkeypatch.setattr(Path, "rename", stops(Path.rename))
    monkeypatch.setattr(util, "exchange", stops(util.exchange))
    with pytest.raises(KeyboardInterrupt):
        list(map(again, [made] * 2))
    monkeypatch.undo()
    assert contents(made).keys() >= {RECORD, PAGE, "scores-1.csv"}
    read_report(made)
    if contents(made) == before:
        assert not list(made.parent.glob(".*")), "nothing is left behind"


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(1, 13))
def test_killed_at_any_moment_one_whole_report_is_left(made, moment):
    """At the n-th rename or flush; the next run writes over it as if nothing had been."""
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom tests.audit import test_report_files as t\n"
        "count = [0]\n"
        "def dying(real):\n"
        "    def call(*a, **k):\n"
        "        count[0] += 1\n"
        f"        if count[0] == {moment}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return real(*a, **k)\n"
        "    return call\n"
        "os.fsync = dying(os.fsync)\nPath.rename = dying(Path.rename)\nt.util.exchange = dying(t.util.exchange)\n"
        "t.again(Path(sys.argv[1]))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(made)], capture_output=True, text=True, check=False)
    assert run.returncode in (0, -signal.SIGKILL), run.stderr
    assert verify(made).consistent
    again(made)
    assert verify(made).consistent


def test_a_place_that_cannot_be_exchanged_is_refused_before_anything_is_scored(made, tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for place in (Path(), tmp_path / "inner"):
        with pytest.raises(
            InputError, match="replaces its folder as a whole, and this is in use; name a folder inside"
        ):
            check_place(place)
    check_place(Path("report"))
    monkeypatch.setattr(Path, "is_mount", lambda self: self == made)
    with pytest.raises(InputError, match="name a folder inside it"):
        check_place(made)


def test_the_folder_has_the_rights_that_the_mask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        again(tmp_path / "report")
    finally:
        os.umask(before)
    assert (tmp_path / "report").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "report" / RECORD).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", [RECORD, PAGE, "scores-1.csv"])
def test_a_full_disk_names_the_place_and_leaves_the_earlier_report(made, monkeypatch, name):
    before = contents(made)

    def full(descriptor):
        if name in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '.*{name}'"):
        again(made)
    assert contents(made) == before
    assert [path.name for path in made.parent.iterdir()] == ["report"]


def test_a_log_on_a_full_disk_names_the_place(tmp_path):
    plan = plans.read(OLDER.parent / "plan.json")
    log = tmp_path / "runs.jsonl"
    log.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*runs\.jsonl'"):
        plans.record_run(plan, ["0" * 64], "no evidence", [log])


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_plan_is_written_whole_and_never_over_another_file(tmp_path, monkeypatch, links):
    plan = plans.read(OLDER.parent / "plan.json")

    def full(_):
        raise OSError(28, "No space left on device")

    def unable(*_):
        raise OSError(95, "Operation not supported")

    if not links:
        monkeypatch.setattr(os, "link", unable)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="plan.json: cannot be written .no space left on device"):
            plans.write(plan, tmp_path / "plan.json")
    assert not list(tmp_path.iterdir())
    plans.write(plan, tmp_path / "plan.json")
    (tmp_path / "dangling.json").symlink_to(tmp_path / "nowhere")
    for name in ("plan.json", "dangling.json"):
        with pytest.raises(InputError, match="a frozen plan is never written over"):
            plans.write(plan, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling.json", "plan.json"]


def test_nothing_is_written_through_a_link_that_waits_for_it(tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".table.csv.{os.getpid()}.part").symlink_to(tmp_path / "mine")
    (tmp_path / "table.csv").symlink_to(tmp_path / "mine")
    util.write_whole(tmp_path / "table.csv", "x", 0o600)
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "table.csv").read_text() == "x"
    assert (tmp_path / "table.csv").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "table.csv"]


# ---- records made to hang, to mislead, or to be read otherwise


def code_of(out, *more):
    run = CliRunner().invoke(app, ["verify", str(out), *more])
    error = run.exception
    return (error.exit_code, str(error)) if isinstance(error, InputError) else (run.exit_code, run.output)


def text_with(out, old, new):
    text = (out / RECORD).read_text()
    assert old in text
    (out / RECORD).write_text(text.replace(old, new, 1))


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def linked(path, to):
    path.unlink()
    path.symlink_to(to)


def grown(path, size):
    with path.open("r+b") as file:
        file.truncate(size)


HANGS = {
    "permutations": (
        lambda o: edited(o, lambda d: d["repeat"].update(permutations=10**9)),
        "repeat.permutations: Input",
    ),
    "splits": (lambda o: edited(o, lambda d: d["repeat"].update(deals=10**8)), "repeat.deals: Input should be less"),
    "deep": (lambda o: (o / RECORD).write_text("[" * 10**6), "the file: is nested too deeply"),
    "deep objects": (lambda o: (o / RECORD).write_text('{"a":' * 10**5), "the file: is nested too deeply"),
    "NaN": (lambda o: text_with(o, '"minutes":', '"minutes": NaN, "m":'), "NaN is no number"),
    "infinity": (lambda o: text_with(o, '"alpha":', '"alpha": -Infinity, "a":'), "-Infinity is no number"),
    "a number beyond floats": (
        lambda o: text_with(o, '"alpha": 0.01', '"alpha": 1e999'),
        r"alpha: Input should be a finite number",
    ),
    "a key twice": (
        lambda o: text_with(o, '"verdict":', '"verdict": "evidence", "verdict":'),
        "with a key twice|key twice",
    ),
    "many keys": (
        lambda o: edited(o, lambda d: d["repeat"]["versions"].update({str(i): "" for i in range(20_000)})),
        "more than 10,000 keys",
    ),
    "many digits": (lambda o: text_with(o, '"seed":', '"seed": ' + "9" * 10_000 + ', "s":'), "the file: Exceeds"),
    "many wrong entries": (
        lambda o: text_with(o, '"duplicates": []', '"duplicates": [' + "1," * 2_000_000 + "1]"),
        "duplicates.0: Input should be a valid string",
    ),
    "no text": (lambda o: (o / RECORD).write_bytes(b"\xff\xfe\x00"), "the file: "),
    "nothing": (lambda o: (o / RECORD).write_bytes(b""), "the file: "),
    "a large record": (lambda o: grown(o / RECORD, 2**30), "1,073,741,824 bytes, more than the 16,777,216"),
    "a large table": (lambda o: grown(o / "scores-1.csv", 2**31), "scores-1.csv: 2,147,483,648 bytes, more than"),
    "many cells": (lambda o: (o / "scores-1.csv").write_bytes(b"," * 11_000_000), "more than 10,000,000 cells"),
    "a pipe for a record": (lambda o: fifo(o / RECORD), "report.json: no regular file"),
    "a pipe for a table": (lambda o: fifo(o / "scores-1.csv"), "scores-1.csv: no regular file"),
    "a device for a record": (lambda o: linked(o / RECORD, "/dev/zero"), "a link that leaves the folder"),
    "a device for a table": (lambda o: linked(o / "scores-1.csv", "/dev/zero"), "a link that leaves the folder"),
    "a folder for a table": (
        lambda o: ((o / "scores-1.csv").unlink(), (o / "scores-1.csv").mkdir()),
        "scores-1.csv: no regular file",
    ),
    "another version": (lambda o: edited(o, lambda d: d.update(schema_version=3)), "schema_version: Input"),
    "an unfinished one": (lambda o: (o / UNFINISHED).touch(), "an earlier version was interrupted while it wrote this"),
    "another file": (lambda o: edited(o, lambda d: d["repeat"]["files"].update({"../x": "0"})), "outside the report"),
}


@pytest.mark.parametrize("kind", HANGS)
def test_what_cannot_be_checked_is_one_line_and_a_code_of_its_own(made, kind):
    change, said = HANGS[kind]
    change(made)
    code, line = code_of(made)
    assert code == 6, line
    assert "\n" not in line
    assert len(line) < 500
    assert re.search(said, line)


def test_the_codes_of_verify_differ(made, tmp_path):
    assert code_of(made)[0] == 0
    assert code_of(tmp_path / "nowhere")[0] == 2
    assert code_of(made, "--model", "pocket/musicgen-a") == (
        2, "a model is given to score recordings again; give these too (--recordings)"
    )  # fmt: skip
    assert code_of(made, "--key", str(made / PAGE))[0] == 2
    edited(made, lambda d: d.update(made="yesterday"))
    assert code_of(made)[0] == 1
    told = " ".join(CliRunner().invoke(app, ["verify", "--help"]).output.split())
    for part in ("0 consistent", "1 something disagrees", "6 it cannot be checked"):
        assert part in told


@pytest.mark.parametrize("kind", ["pipe", "large", "device"])
def test_a_page_that_cannot_be_read_disagrees(made, kind):
    page = made / PAGE
    {"pipe": fifo, "large": lambda p: grown(p, 2**31), "device": lambda p: linked(p, "/dev/zero")}[kind](page)
    assert re.match(r"report\.html: (no regular file|2,147,|a link that leaves)", verify(made).lines[1])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, ""),
        ({"alpha": 0.05}, "alpha 0.05 (0.01)"),
        ({"permutations": 99}, "permutations 99 (9999)"),
        ({"deals": 7}, "deals 7 (500)"),
        ({"seed": 3, "seed_from": "given"}, "seed 3 (derived from the recordings)"),
        ({"alpha": 0.05, "deals": 7}, "alpha 0.05 (0.01), deals 7 (500)"),
    ],
)
def test_settings_that_are_not_the_defaults_stand_beside_the_verdict(change, named):
    record, files = read_report(OLDER)
    usual = {"alpha": 0.01, "permutations": 9999, "deals": 500}
    record = record.model_copy(update={"schema_version": 2, "repeat": record.repeat.model_copy(update=usual | change)})
    assert record.repeat.unusual() == named
    (word,) = re.findall(r'<p class="word">.*</p>', html.page(record, files))
    assert (f"(not the defaults: {escape(named)})" in word) == bool(named)
    assert str(record).startswith(f"{record.verdict} (not the defaults: {named}): " if named else f"{record.verdict}: ")


def test_a_record_of_the_first_version_is_written_as_it_was(tmp_path):
    record, _ = read_report(OLDER)
    assert record.model_dump_json(indent=1) + "\n" == (OLDER / RECORD).read_text()
