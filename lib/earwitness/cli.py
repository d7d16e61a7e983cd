"""The command line: ``check | plan | audit | verify`` an audit; ``models | score | page | new | manifest`` do more.

Thin: what a command does is in the library. Ctrl-C, or a scheduler that takes the machine back, stops a command
within a second, and the last line says how to go on.

Exit codes: 0 finished; 1 a page failed, ``verify`` found a disagreement or ``manifest verify`` a corrupt recording;
2 input, 3 model, 4 interrupted, 5 results cannot be written or read, 6 a report cannot be checked.
The book page *Audit your own* shows each.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from earwitness.errors import EarwitnessError, InputError, StoppedError
from earwitness.surroundings import settle
from earwitness.util import VERSION, plain, reason_of, results_dir, write_whole


class Commands(TyperGroup):
    """Commands that refuse an empty text: as a path it would be the folder at hand. Of models the loader speaks."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the option before an empty argument, as a variable that is not set leaves one.

        Raises
        ------
        InputError
            An argument that is blank.
        """
        for before, text in zip(["", *args], args, strict=False):
            name, equals, value = text.partition("=") if text.startswith("--") else (before, "=", text)
            if equals and not value.strip() and not name.endswith("-model"):
                raise InputError(
                    f"{name or 'the command'}: expected a value, got an empty text; is a variable not set?"
                )
        return super().parse_args(ctx, args)


ABOUT = "Did this audio model train on these recordings?"
app = typer.Typer(cls=Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=ABOUT)
manifest_app = typer.Typer(add_completion=False, no_args_is_help=True, help="Corpora: build and verify manifests.")
app.add_typer(manifest_app, name="manifest")
SHOWN = 10  # ids printed of each kind by ``manifest verify``
AGAIN_S = 0.5  # raised again after so long, if it was lost all the same
WAIT_S = 0.05  # while it cannot be raised

GIVEN, ASKED, COMPARED, REPORT, ADVANCED = "Recordings", "Models", "How they are compared", "Report", "Advanced"


def _option(panel: str, metavar: str, words: str, *names: str, **more: Any) -> Any:
    """Return an option in its group, with a short name for its value, so that 80 columns hold it."""
    return typer.Option(*names, help=words, metavar=metavar, rich_help_panel=panel, **more)


def _flag(panel: str, words: str, *names: str) -> Any:
    return typer.Option(*names, help=words, rich_help_panel=panel)


Manifest = Annotated[Path, _option(GIVEN, "CSV", "manifest, one row per track")]
Model = Annotated[str, _option(ASKED, "NAME", "pocket name, local folder or hub name")]
Models = Annotated[
    list[str] | None, _option(ASKED, "NAME", "pocket name, local folder or hub name (repeat it)", "--model")
]
Suspects = Annotated[Path | None, _option(GIVEN, "DIR", "the recordings in question")]
HeldOut = Annotated[Path | None, _option(GIVEN, "DIR", "recordings that cannot have been trained on")]
AuditManifest = Annotated[Path | None, _option(GIVEN, "CSV", "path and role a row, instead of two folders")]
Root = Annotated[Path | None, _option(GIVEN, "DIR", "what the manifest's paths are relative to")]
ByFolder = Annotated[bool, _flag(GIVEN, "folders are artists, in them albums, each counting once", "--by-folder")]
Captions = Annotated[Path | None, _option(GIVEN, "CSV", "path and caption")]
ControlModel = Annotated[
    str | None, _option(ASKED, "NAME", "a model trained on neither side; the difference is tested")
]
ControlSaw = Annotated[str | None, _option(ASKED, "WORD", 'say "neither" if you know that it saw neither side')]
References = Annotated[
    Path | None, _option(COMPARED, "DIR", "one folder per other artist; a rank beside the audit", "--reference-artists")
]
Pairs = Annotated[str | None, _option(COMPARED, "WORD", "work: takes of the same work, suspect against held-out")]
Works = Annotated[Path | None, _option(COMPARED, "CSV", "path and work: which recordings are versions of one piece")]
Unit = Annotated[str, _option(COMPARED, "WORD", "work, or track: count every version; the report warns of it")]
AuditSeed = Annotated[int | None, _option(ADVANCED, "N", "default: derived from the recordings", "--seed")]
Alpha = Annotated[float, _option(ADVANCED, "X", "level of the tests")]
Permutations = Annotated[int, _option(ADVANCED, "N", "relabellings of each test", "--permutations")]
Deals = Annotated[int, _option(ADVANCED, "N", "deals of the level check")]
Dtype = Annotated[str, _option(ADVANCED, "TYPE", "float32, bfloat16, float16, or auto: bfloat16 on a card that has it")]
Download = Annotated[bool, _flag(ASKED, "fetch a hub model that is not here", "--allow-download")]
Splits = Annotated[list[str] | None, _option(GIVEN, "NAME", "only these splits (repeat the option)", "--split")]
Seed = Annotated[int, _option(ADVANCED, "N", "draws the offsets of the cuts", min=0)]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"earwitness {VERSION}")
        raise typer.Exit


@app.callback()
def _face(
    version: Annotated[
        bool, typer.Option("--version", help="say which version this is", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def check(
    *,
    suspects: Suspects = None,
    held_out: HeldOut = None,
    model: Models = None,
    manifest: AuditManifest = None,
    root: Root = None,
    captions: Captions = None,
    control_model: ControlModel = None,
    control_saw: ControlSaw = None,
    reference_artists: References = None,
    pairs: Pairs = None,
    works: Works = None,
    unit: Unit = "work",
    by_folder: ByFolder = False,
    seed: AuditSeed = None,
    alpha: Alpha = 0.01,
    n_permutations: Permutations = 9999,
    as_json: Annotated[bool, _flag(REPORT, "print everything found as JSON", "--json")] = False,
    write: Annotated[str, _option(REPORT, "NAME", "also write data_manifests/artists/NAME.csv and its card")] = "",
    workers: Annotated[int | None, _option(ADVANCED, "N", "files decoded at a time", min=1, max=64)] = None,
) -> None:
    """Say what was found, what is left out and why, and whether that can be tested. No model is loaded.

    The last line answers yes or no. It is a look at the recordings, and recorded as one.
    """
    from rich.console import Console

    from earwitness.audit.procedure import check as look
    from earwitness.audit.request import Request
    from earwitness.data.manifest import record_path, write_record
    from earwitness.terminal import as_dict, show_check

    target = record_path(write) if write else None
    request = Request(
        models=tuple(model or ()), suspects=suspects, held_out=held_out, manifest=manifest, root=root,
        by_folder=by_folder, captions=captions, control_model=control_model, control_saw=control_saw,
        reference_artists=reference_artists, pairs=pairs, works=works, unit=unit, seed=seed, alpha=alpha,
        n_permutations=n_permutations,
    )  # fmt: skip
    intake, before, looks = look(request, workers=workers)
    if as_json:
        typer.echo(json.dumps(as_dict(intake, before, looks), indent=2))
    else:
        show_check(intake, Console(highlight=False), before, looks)
    if target:
        written, card = write_record(intake, target, title=f"Audit of {write}")
        typer.echo(
            f"wrote {written.name} and {card.name}; paths are relative to --root {plain(str(intake.root))}", err=True
        )


@app.command()
def plan(
    *,
    suspects: Suspects = None,
    held_out: HeldOut = None,
    model: Models = None,
    manifest: AuditManifest = None,
    root: Root = None,
    captions: Captions = None,
    control_model: ControlModel = None,
    control_saw: ControlSaw = None,
    reference_artists: References = None,
    pairs: Pairs = None,
    works: Works = None,
    unit: Unit = "work",
    by_folder: ByFolder = False,
    freeze: Annotated[Path | None, _option(REPORT, "FILE", "fix the audit in this file instead, unscored")] = None,
    seed: AuditSeed = None,
    alpha: Alpha = 0.01,
    n_permutations: Permutations = 9999,
    dtype: Dtype = "float32",
    split: Splits = None,
    attacks: Annotated[
        str, _option(ADVANCED, "NAMES", "whose signals are wanted; default: an audit's, of a manifest alone all")
    ] = "",
    json_output: Annotated[bool, _flag(REPORT, "for programs; a list where there are several", "--json")] = False,
    probe: Annotated[bool, _flag(ADVANCED, "measure on a few segments", "--probe/--no-probe")] = True,
    allow_download: Download = False,
) -> None:
    """Say what scoring would take, and whether there are enough recordings, or fix an audit before it is scored.

    Whether the recordings themselves tell the two sides apart is asked by `earwitness check`.
    """
    from rich.console import Console

    from earwitness.audit.cost import forecast, forecasts, tracks_with_roles
    from earwitness.audit.display import show_forecasts
    from earwitness.audit.request import Request

    how: dict[str, Any] = {"seed": seed or 0, "probe": probe, "allow_download": allow_download}
    auditing_only: tuple[object, ...] = (freeze, root, captions, control_model, control_saw, reference_artists, pairs)
    auditing_only += (works, unit != "work", by_folder)
    if split and (manifest is None or any(auditing_only)):
        raise InputError("--split is for a manifest that is scored; an audit's sides follow from roles alone")
    request = Request(
        models=tuple(model or ()), suspects=suspects, held_out=held_out, manifest=manifest, root=root,
        by_folder=by_folder, captions=captions,
        control_model=control_model, control_saw=control_saw, reference_artists=reference_artists, pairs=pairs,
        works=works, unit=unit, seed=seed, alpha=alpha, n_permutations=n_permutations, dtype=dtype,
    )  # fmt: skip
    if manifest is not None and not any(auditing_only):
        how |= {"alpha": alpha, "dtype": dtype}
        found = [
            forecast(name, tracks_with_roles(manifest, name, split), attacks or "all", **how) for name in request.models
        ]
    else:
        if freeze is not None:
            from earwitness.audit.procedure import freeze as fix  # draws and tests: only what fixes an audit needs it

            fixed = fix(request, freeze, download=allow_download)
            sides = f"{fixed.suspects} against {fixed.held_out} recordings"
            _say(f"{freeze}: {sides}, seed {fixed.seed}, plan {fixed.digest()}")
            return
        found = forecasts(request, attacks or "audit", **how)
    if json_output:
        listed = [asdict(one) for one in found]
        typer.echo(json.dumps(listed if len(listed) > 1 else listed[0], indent=2))
    else:
        show_forecasts(found, Console(highlight=False))
        if suspects is not None or any(auditing_only):
            _say("Whether the recordings themselves tell the sides apart: earwitness check, with the same options.")


@app.command()
def audit(
    *,
    suspects: Suspects = None,
    held_out: HeldOut = None,
    model: Models = None,
    out: Annotated[Path, _option(REPORT, "DIR", "the report's: new, or holding an earlier one")] = Path("report"),
    manifest: AuditManifest = None,
    root: Root = None,
    captions: Captions = None,
    control_model: ControlModel = None,
    control_saw: ControlSaw = None,
    reference_artists: References = None,
    pairs: Pairs = None,
    works: Works = None,
    unit: Unit = "work",
    by_folder: ByFolder = False,
    frozen: Annotated[Path | None, _option(COMPARED, "FILE", "written by plan --freeze; nothing else is run")] = None,
    seed: AuditSeed = None,
    alpha: Alpha = 0.01,
    n_permutations: Permutations = 9999,
    deals: Deals = 500,
    dtype: Dtype = "float32",
    by: Annotated[str, _option(REPORT, "TEXT", "who made the report, for its first page")] = "",
    made_for: Annotated[str, _option(REPORT, "TEXT", "for whom, for its first page", "--for")] = "",
    with_audio: Annotated[bool, _flag(REPORT, "put the sound of single suspects in", "--with-audio")] = False,
    redact: Annotated[bool, _flag(REPORT, "numbers instead of names and paths", "--redact")] = False,
    pdf: Annotated[bool, _flag(REPORT, "print it to a PDF (needs Chromium)", "--pdf")] = False,
    allow_download: Download = False,
) -> None:
    """Audit recordings: evidence, no evidence or not testable, and a report that shows why. Exits 0 for all three."""
    from earwitness.audit.procedure import run
    from earwitness.audit.request import Request

    request = Request(
        models=tuple(model or ()), suspects=suspects, held_out=held_out, manifest=manifest, root=root,
        by_folder=by_folder, captions=captions,
        control_model=control_model, control_saw=control_saw, reference_artists=reference_artists, pairs=pairs,
        works=works, unit=unit, frozen=frozen, seed=seed, alpha=alpha, n_permutations=n_permutations, deals=deals,
        dtype=dtype, by=by, made_for=made_for, with_audio=with_audio, redact=redact, pdf=pdf,
    )  # fmt: skip
    report = run(request, out, say=_say, download=allow_download)
    _say(str(report))
    for mend in report.testable.mends:
        _say(f"to make it testable: {mend}")
    _say(f"report: {out / 'report.html'}")


def _say(text: str) -> None:
    """Print a line that may hold names of files: nothing in it is taken as markup or as a control sequence."""
    typer.echo(plain(text))


@app.command()
def verify(
    report: Annotated[Path, typer.Argument(help="folder of a report")],
    recordings: Annotated[list[Path] | None, _option(GIVEN, "DIR", "recordings to compare (repeat it)")] = None,
    model: Annotated[
        list[str] | None, _option(ASKED, "NAME", "hash its weights, score recordings again (repeat it)")
    ] = None,
    captions: Captions = None,
    seed: Annotated[int | None, _option(ADVANCED, "N", "draws what is scored again; default: by lot", min=0)] = None,
    key: Annotated[Path | None, _option(REPORT, "FILE", "of a redacted report: brings the names back")] = None,
) -> None:
    """Say whether a report agrees with the scores stored beside it: consistency, not authenticity.

    Exit codes: 0 consistent; 1 something disagrees; 6 it cannot be checked (damaged, beyond the limits, of another
    version); 2 or 3 what was asked is wrong: no report, key or model there.
    """
    from earwitness.audit.verify import verify as check_report

    found = check_report(report, recordings or [], model=model or [], captions=captions, seed=seed, key=key)
    for line in found.lines:
        _say(line)
    raise typer.Exit(0 if found.consistent else 1)


@app.command("models")
def show_models(
    folder: Annotated[str, typer.Argument(help="a folder, a pocket name or a hub name that is here")] = "",
) -> None:
    """List the families and layouts that are read, or say what a folder is, what it lacks and what it would cost."""
    from earwitness.shelf import LAYOUTS, lines, survey

    for what, text in lines(survey(folder)).items() if folder else LAYOUTS:
        _say(f"{what}: {text}")


@app.command()
def score(
    model: Model,
    manifest: Manifest,
    split: Splits = None,
    attacks: Annotated[str, typer.Option(help="attacks whose signals are wanted")] = "all",
    shard: Annotated[str, typer.Option(help="i/n: score the i-th of n shards")] = "1/1",
    seed: Seed = 0,
    workers: Annotated[int | None, typer.Option(help="processes that decode ahead", min=0, max=64)] = None,
    dtype: Dtype = "float32",
    allow_download: Download = False,
    done: Annotated[Path | None, typer.Option(help="JSON summary to write when finished")] = None,
    status: Annotated[bool, typer.Option("--status", help="only say what is stored")] = False,
) -> None:
    """Score the tracks of a manifest under a model, as far as they are not stored yet."""
    from earwitness.data.manifest import read_splits
    from earwitness.models import describe
    from earwitness.signals.extraction import collect, describe_stored, summary
    from earwitness.signals.store import explained, parse_shard
    from earwitness.util import file_hash

    described = describe(model, dtype=dtype, allow_download=allow_download)  # fails before the manifest is read
    part, tracks, before = parse_shard(shard), read_splits(manifest, split), file_hash(manifest)
    if status:
        typer.echo(json.dumps(describe_stored(model, tracks, attacks, seed=seed, shard=part, dtype=dtype), indent=2))
        return
    signals = collect(described, tracks, attacks, seed=seed, shard=part, workers=workers, progress=True)
    if file_hash(manifest) != before:
        raise StoppedError(f"{manifest.name} changed while it was scored; run the same command again for what is new")
    report = summary(signals)
    if done:
        with explained(done.parent):
            done.parent.mkdir(parents=True, exist_ok=True)
            write_whole(done, json.dumps(report, indent=2) + "\n")
    typer.echo(
        f"{report['tracks']} tracks, {report['segments']} segments under {report['model']}, shard {shard}: "
        f"{signals.provenance['tracks_scored_now']} scored now, {len(report['exclusions'])} excluded"
    )


@app.command()
def page(page_id: Annotated[str, typer.Argument(help="an id of notebooks/experiments.yml")]) -> None:
    """Execute one page of the registry and publish it to the book."""
    from earwitness.book.pages import run_page

    typer.echo(run_page(page_id).name)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="attack, experiment or artist", metavar="KIND")],
    name: Annotated[str, typer.Argument(help="what it is called", metavar="NAME")],
) -> None:
    """Write something small that runs, at every place that an attack, an experiment or an artist needs."""
    from earwitness.book.skeletons import write

    for line in write(kind, name):
        _say(line)


@manifest_app.command("verify")
def verify_manifest(
    manifest: Annotated[Path, typer.Argument(help="CSV manifest, one row per track")],
    root: Root = None,
    workers: Annotated[int, typer.Option(help="files read at a time", min=1, max=64)] = 2,
) -> None:
    """Compare recordings with the manifest's SHA-256; exits 1 if one is corrupt, 0 if some are only missing."""
    from earwitness.data.manifest import holdings, read_splits

    found = holdings(read_splits(manifest, root=root), workers=workers)
    kinds = {"good": found.good, "without a hash": found.unhashed, "missing": found.missing, "corrupt": found.corrupt}
    for kind, ids in kinds.items():
        named = (
            f": {', '.join(ids[:SHOWN])}{', …' if len(ids) > SHOWN else ''}" if kind in {"missing", "corrupt"} else ""
        )
        typer.echo(plain(f"{len(ids):8d} {kind}{named if ids else ''}"))
    for name, reason in found.unreadable.items():
        typer.echo(plain(f"         not to be read: {name}: {reason}"))
    raise typer.Exit(0 if found.sound else 1)


@manifest_app.command("build")
def build_manifest(
    corpus: Annotated[str, typer.Argument(help="a corpus of the page Manifest catalogue, such as audiocaps")],
    source: Annotated[Path, typer.Option("--from", help="folder of the official files, at any depth")],
    audio: Annotated[Path | None, typer.Option(help="folder of the recordings; default: the same")] = None,
    out: Annotated[Path | None, typer.Option(help="manifest to write; default: CORPUS.csv beside the audio")] = None,
    seed: Annotated[int, typer.Option(help="of the lots for captions and matching")] = 0,
    match: Annotated[bool, typer.Option(help="draw members and non-members that are alike")] = True,
    copies: Annotated[bool, typer.Option(help="look for copies of one recording, which decodes all")] = True,
    any_version: Annotated[
        bool, typer.Option("--any-version", help="take files of another size than published")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="overwrite an earlier manifest")] = False,
) -> None:
    """Write a corpus's manifest and card from its official files and the recordings that are on disk."""
    from earwitness_build.corpora.build import build

    built = build(
        corpus,
        source,
        audio=audio,
        out=out,
        seed=seed,
        match=match,
        copies=copies,
        any_version=any_version,
        force=force,
    )
    for row in built.counts.itertuples():
        typer.echo(f"{row.split}: {row.found} of {row.published} recordings found, {row.gone} gone, {row.drawn} drawn")
    for note in built.notes:
        typer.echo(plain(f"note: {note}"))
    typer.echo(plain(f"wrote {built.manifest}, {built.card.name} and {built.gone.name}"))


class Interrupt(BaseException):
    """What a signal raises; no library mistakes it for an error of its own."""


def heed() -> None:
    """Raise ``Interrupt`` on SIGINT and SIGTERM, but for those that the shell keeps from this process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


def leave(code: int) -> NoReturn:
    """End the process once everything is closed, without taking large libraries apart first, which takes seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _raise(_: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, _raise)
    while frame is not None:
        name = frame.f_code.co_name
        if name == "__del__" or name.startswith("vio_"):  # soundfile's callbacks for files in memory
            signal.setitimer(signal.ITIMER_REAL, WAIT_S)
            return
        frame = frame.f_back
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    raise Interrupt


def main() -> None:
    """Run the command line; an error a user can cause is one line on standard error, never a traceback."""
    heed()
    settle(os.environ, results_dir())
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a name that the terminal cannot show
    try:
        try:
            app()
        except Interrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)  # the interruption has arrived
            again = shlex.join(["earwitness", *sys.argv[1:]])
            raise StoppedError(f"interrupted; finished parts are stored, to go on: {again}") from None
    except EarwitnessError as error:
        typer.echo(f"earwitness: {error}", err=True)
        if isinstance(error, StoppedError):
            leave(error.exit_code)
        sys.exit(error.exit_code)
    except OSError as error:  # a disk that is full, a folder that cannot be written to
        place = error.filename or "reading or writing"
        typer.echo(plain(f"earwitness: {place}: {reason_of(error)}; mend it and run the same command again"), err=True)
        sys.exit(InputError.exit_code)


if __name__ == "__main__":
    main()
