"""``python -m earwitness.pocket``: build the pocket corpus again; its models: ``python -m earwitness_build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earwitness.errors import exit_with_one_line
from earwitness.util import project_root, write_whole

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Build the pocket corpus again.")


@app.command()
def corpus() -> None:
    """Render the audio files that are missing."""
    from earwitness.pocket.corpus import ensure_corpus

    typer.echo(ensure_corpus())


@app.command()
def manifest(out: Annotated[Path | None, typer.Option(help="file to write")] = None) -> None:
    """Write data_manifests/pocket.csv and, beside it, pocket-ladder.csv (the ladder) and pocket-midi.csv (scores)."""
    from earwitness.pocket.corpus import ladder_plan, manifest_csv, midi_plan

    target = out or project_root() / "data_manifests" / "pocket.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, manifest_csv())
    typer.echo(target)
    for name, entries in (("ladder", ladder_plan()), ("midi", midi_plan())):
        beside = target.with_name(f"{target.stem}-{name}.csv")
        write_whole(beside, manifest_csv(entries))
        typer.echo(beside)


if __name__ == "__main__":
    with exit_with_one_line():
        app()
