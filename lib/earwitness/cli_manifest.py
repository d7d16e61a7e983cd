"""The commands under ``earwitness manifest``: thin, one library function each.

The book page *Methods: manifests* shows them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earwitness.text import plain

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Corpora: build, verify and compare manifests.")

Root = Annotated[Path | None, typer.Option(help="folder that the manifest's paths are relative to")]
SHOWN = 10  # ids printed of each kind


@app.command()
def verify(
    manifest: Annotated[Path, typer.Argument(help="CSV manifest, one row per track")],
    root: Root = None,
    workers: Annotated[int, typer.Option(help="files read at a time", min=1, max=64)] = 2,
) -> None:
    """Compare recordings with the manifest's SHA-256; exits 1 if one is corrupt, 0 if some are only missing."""
    from earwitness.holdings import holdings
    from earwitness.manifest import read_splits

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


@app.command()
def build(
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
    from earwitness.builders.build import build as build_manifest

    built = build_manifest(
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
