"""The command line: ``earwitness check | plan | score | clean | page``. Thin: every command calls one library function.

Exit codes: 0 finished, 1 a page failed, 2 input, 3 model, 4 interrupted, 5 results cannot be written or read.
The book page *Audit your own* shows each.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from earwitness import cli_manifest, interrupt
from earwitness.errors import EarwitnessError, InputError, StoppedError
from earwitness.paths import reason_of
from earwitness.text import plain

ABOUT = "Did this audio model train on these recordings?"
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=ABOUT)
app.add_typer(cli_manifest.app, name="manifest")

Manifest = Annotated[Path, typer.Option(help="CSV manifest, one row per track")]
Model = Annotated[str, typer.Option(help="pocket name, local folder or hub name")]
Models = Annotated[list[str], typer.Option("--model", help="pocket name, local folder or hub name (repeat it)")]
Suspects = Annotated[Path | None, typer.Option(help="folder of the recordings in question")]
HeldOut = Annotated[Path | None, typer.Option(help="folder of recordings that cannot have been trained on")]
AuditManifest = Annotated[Path | None, typer.Option("--manifest", help="CSV, one row per track, instead of folders")]
Root = Annotated[Path | None, typer.Option(help="folder that the manifest's paths are relative to")]
Captions = Annotated[Path | None, typer.Option(help="CSV with path and caption")]
ControlModel = Annotated[str | None, typer.Option(help="a model trained on neither side; the difference is tested")]
ControlSaw = Annotated[str | None, typer.Option(help="neither: you know what the control was trained on")]
References = Annotated[Path | None, typer.Option("--reference-artists", help="folder with one folder per artist")]
Pairs = Annotated[str | None, typer.Option(help="work: compare takes of the same work")]
Download = Annotated[bool, typer.Option("--allow-download", help="fetch a hub model that is not here")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="only these splits (repeat the option)")]
Seed = Annotated[int, typer.Option(help="draws the offsets of the cuts", min=0)]


@app.command()
def check(
    model: Annotated[str, typer.Option(help="model whose window decides; it is not loaded")],
    suspects: Annotated[Path | None, typer.Option(help="folder of the recordings in question")] = None,
    held_out: Annotated[Path | None, typer.Option(help="folder of recordings that cannot have been trained on")] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV with path and role, instead of two folders")] = None,
    root: Annotated[Path | None, typer.Option(help="folder that the manifest's paths are relative to")] = None,
    pairs: Pairs = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything found as JSON")] = False,
    write: Annotated[str, typer.Option(help="also write data_manifests/artists/NAME.csv and its card")] = "",
    workers: Annotated[int, typer.Option(help="files decoded at a time", min=1, max=64)] = 2,
) -> None:
    """Say what was found, what is left out and why, and whether that can be tested, before any model is loaded."""
    from rich.console import Console

    from earwitness.checkup import as_dict, show
    from earwitness.gather import gather
    from earwitness.intake import examine, record_path, write_manifest
    from earwitness.planning import identity

    identity(model, allow_download=False)  # a mistyped name should fail before a thousand files are read
    target = record_path(write) if write else None
    found = gather(suspects=suspects, held_out=held_out, manifest=manifest, root=root, model=model)
    intake = examine(found.tracks, model, workers=workers, found=found, pairs=pairs)
    if as_json:
        typer.echo(json.dumps(as_dict(intake), indent=2))
    else:
        show(intake, Console(highlight=False))
    if target:
        written, card = write_manifest(intake, target, title=f"Audit of {write}")
        typer.echo(
            f"wrote {written.name} and {card.name}; paths are relative to --root {plain(str(intake.root))}", err=True
        )


@app.command()
def plan(
    model: Models,
    manifest: AuditManifest = None,
    split: Splits = None,
    attacks: Annotated[
        str,
        typer.Option(help="attacks whose signals are wanted; default: those of an audit, of a manifest alone all"),
    ] = "",
    seed: Seed = 0,
    json_output: Annotated[bool, typer.Option("--json", help="for programs; a list where there are several")] = False,
    probe: Annotated[bool, typer.Option(help="measure on a few segments")] = True,
    allow_download: Download = False,
    suspects: Suspects = None,
    held_out: HeldOut = None,
    root: Root = None,
    captions: Captions = None,
    control_model: ControlModel = None,
    control_saw: ControlSaw = None,
    reference_artists: References = None,
    pairs: Pairs = None,
    freeze: Annotated[Path | None, typer.Option(help="fix the audit in this file instead, before it is scored")] = None,
) -> None:
    """Say what scoring would take, and whether the result could be tested, or fix an audit before it is scored."""
    from rich.console import Console

    from earwitness import audit as auditing
    from earwitness.audit import cost
    from earwitness.planning import forecast, tracks_with_roles
    from earwitness.planning_table import show

    how: dict[str, Any] = {"seed": seed, "probe": probe, "allow_download": allow_download}
    auditing_only = (freeze, root, captions, control_model, control_saw, reference_artists, pairs)
    if split and (manifest is None or any(auditing_only)):
        raise InputError("--split is for a manifest that is scored; an audit's sides follow from roles alone")
    request = auditing.Request(
        models=tuple(model), suspects=suspects, held_out=held_out, manifest=manifest, root=root, captions=captions,
        control_model=control_model, control_saw=control_saw, reference_artists=reference_artists, pairs=pairs,
    )  # fmt: skip
    if manifest is not None and not any(auditing_only):
        found = [forecast(name, tracks_with_roles(manifest, name, split), attacks or "all", **how) for name in model]
    else:
        if freeze is not None:
            fixed = auditing.freeze(request, freeze, download=allow_download)
            sides = f"{fixed.suspects} against {fixed.held_out} recordings"
            _say(f"{freeze}: {sides}, seed {fixed.seed}, plan {fixed.digest()}")
            return
        found = cost.forecasts(request, attacks or "audit", **how)
    if json_output:
        listed = [one.to_dict() for one in found]
        typer.echo(json.dumps(listed if len(listed) > 1 else listed[0], indent=2))
    else:
        show(found, Console(highlight=False))


@app.command()
def score(
    model: Model,
    manifest: Manifest,
    split: Splits = None,
    attacks: Annotated[str, typer.Option(help="attacks whose signals are wanted")] = "all",
    shard: Annotated[str, typer.Option(help="i/n: score the i-th of n shards")] = "1/1",
    seed: Seed = 0,
    workers: Annotated[int | None, typer.Option(help="processes that decode ahead", min=0, max=64)] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    done: Annotated[Path | None, typer.Option(help="JSON summary to write when finished")] = None,
    status: Annotated[bool, typer.Option("--status", help="only say what is stored")] = False,
) -> None:
    """Score the tracks of a manifest under a model, as far as they are not stored yet."""
    from earwitness.manifest import file_hash, read_splits
    from earwitness.models import describe
    from earwitness.shards import parse_shard
    from earwitness.signals import collect, summary
    from earwitness.store import explained
    from earwitness.upkeep import status as stored

    describe(model, dtype=dtype)  # a mistyped name should fail before the manifest is read
    part, tracks, before = parse_shard(shard), read_splits(manifest, split), file_hash(manifest)
    if status:
        typer.echo(json.dumps(stored(model, tracks, attacks, seed=seed, shard=part, dtype=dtype), indent=2))
        return
    signals = collect(model, tracks, attacks, seed=seed, shard=part, workers=workers, dtype=dtype)
    if file_hash(manifest) != before:
        raise StoppedError(f"{manifest.name} changed while it was scored; run the same command again for what is new")
    report = summary(signals)
    if done:
        with explained(done.parent):
            done.parent.mkdir(parents=True, exist_ok=True)
            unfinished = done.with_name(f".{done.name}.part")
            unfinished.write_text(json.dumps(report, indent=2) + "\n")
            unfinished.replace(done)
    typer.echo(
        f"{report['tracks']} tracks, {report['segments']} segments under {report['model']}, shard {shard}: "
        f"{signals.provenance['tracks_scored_now']} scored now, {len(report['exclusions'])} excluded"
    )


@app.command()
def clean(
    manifest: Annotated[list[Path] | None, typer.Option(help="a manifest outside data_manifests/ (repeat)")] = None,
    missing_audio: Annotated[
        bool, typer.Option("--missing-audio", help="though recordings without sha256 are gone")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="remove what is shown")] = False,
) -> None:
    """Show stored signals that no manifest uses; with --yes remove them."""
    from earwitness.upkeep import leftovers, manifests, remove

    found = leftovers([*manifests(), *(manifest or [])], missing_audio=missing_audio)
    for leftover in found:
        where = f"{leftover.path.parent.name}/{leftover.path.name}"
        typer.echo(f"{leftover.size / 2**20:8.2f} MiB  {where}: {leftover.reason}")
    size = sum(leftover.size for leftover in found) / 2**20
    if yes:
        remove(found)
    typer.echo(f"{len(found)} files, {size:.2f} MiB {'removed' if yes else 'could go; --yes removes them'}")


@app.command()
def audit(
    out: Annotated[Path, typer.Option(help="folder of the report: new, or holding an earlier one")],
    model: Models,
    suspects: Suspects = None,
    held_out: HeldOut = None,
    manifest: AuditManifest = None,
    root: Root = None,
    control_model: ControlModel = None,
    control_saw: ControlSaw = None,
    reference_artists: References = None,
    captions: Captions = None,
    pairs: Pairs = None,
    frozen: Annotated[Path | None, typer.Option(help="plan written by plan --freeze; nothing else is run")] = None,
    seed: Annotated[int | None, typer.Option(help="default: derived from the recordings")] = None,
    with_audio: Annotated[bool, typer.Option(help="put the sound of single suspects into the report")] = False,
    redact: Annotated[bool, typer.Option(help="numbers instead of names and paths")] = False,
    pdf: Annotated[bool, typer.Option(help="print the report to a PDF (needs Chromium)")] = False,
    allow_download: Download = False,
) -> None:
    """Audit recordings: evidence, no evidence or not testable, and a report that shows why. Exits 0 for all three."""
    from earwitness import audit as auditing

    request = auditing.Request(
        models=tuple(model), suspects=suspects, held_out=held_out, manifest=manifest, root=root, captions=captions,
        control_model=control_model, control_saw=control_saw, reference_artists=reference_artists, pairs=pairs,
        frozen=frozen, seed=seed, with_audio=with_audio, redact=redact, pdf=pdf,
    )  # fmt: skip
    report = auditing.run(request, out, say=_say, download=allow_download)
    _say(f"{report.verdict}: {report.answer}")
    for mend in report.testable.mends:
        _say(f"to make it testable: {mend}")
    _say(f"report: {out / 'report.html'}")


def _say(text: str) -> None:
    """Print a line that may hold names of files: nothing in it is taken as markup or as a control sequence."""
    typer.echo(plain(text))


@app.command()
def verify(
    report: Annotated[Path, typer.Argument(help="folder of a report")],
    recordings: Annotated[list[Path] | None, typer.Option(help="folder of recordings to compare (repeat it)")] = None,
) -> None:
    """Say whether a report agrees with the scores stored beside it: consistency, not authenticity."""
    from earwitness.folders import scan
    from earwitness.report.verify import verify as check_report

    entries = [entry for folder in recordings or [] for entry in scan(folder)]
    found = check_report(report, [entry.path for entry in entries if entry.kind == "recording" and not entry.reason])
    for line in found.lines:
        _say(line)
    raise typer.Exit(0 if found.consistent else 1)


@app.command()
def redact(notebook: Annotated[Path, typer.Argument(help="notebook that papermill executed with redact=True")]) -> None:
    """Take the names of folders that papermill keeps out of an executed notebook."""
    from earwitness.report.notebook import redact as take_out

    take_out(notebook)
    _say(f"{notebook.name}: paths taken out")


@app.command()
def page(page_id: Annotated[str, typer.Argument(help="an id of notebooks/experiments.yml")]) -> None:
    """Execute one page of the registry and publish it to the book."""
    from earwitness.pages import run_page

    typer.echo(run_page(page_id).name)


def main() -> None:
    """Run the command line; an error a user can cause is one line on standard error, never a traceback."""
    interrupt.heed()
    try:
        try:
            app()
        except interrupt.Interrupt:
            interrupt.settle()
            again = shlex.join(["earwitness", *sys.argv[1:]])
            raise StoppedError(f"interrupted; finished parts are stored, to go on: {again}") from None
    except EarwitnessError as error:
        typer.echo(f"earwitness: {error}", err=True)
        if isinstance(error, StoppedError):
            interrupt.leave(error.exit_code)
        sys.exit(error.exit_code)
    except OSError as error:  # a disk that is full, a folder that cannot be written to
        place = error.filename or "reading or writing"
        typer.echo(plain(f"earwitness: {place}: {reason_of(error)}; mend it and run the same command again"), err=True)
        sys.exit(InputError.exit_code)


if __name__ == "__main__":
    main()
