"""``python -m earwitness.pocket``: build the pocket world again from nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from earwitness.errors import EarwitnessError
from earwitness.paths import project_root

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Build the pocket corpus and its models again.")


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
    target.write_text(manifest_csv())
    typer.echo(target)
    for name, entries in (("ladder", ladder_plan()), ("midi", midi_plan())):
        beside = target.with_name(f"{target.stem}-{name}.csv")
        beside.write_text(manifest_csv(entries))
        typer.echo(beside)


@app.command()
def train(only: Annotated[str | None, typer.Option(help="one model, for example musicgen-a")] = None) -> None:
    """Train the pocket models and save them as package data."""
    from earwitness.pocket import train as token
    from earwitness.pocket import train_figaro as symbolic
    from earwitness.pocket import train_ldm as diffusion

    families = (
        (token.TARGETS, token.train_all),
        (diffusion.TWINS, diffusion.train_twins),
        (symbolic.TWINS, symbolic.train_twins),
    )
    wanted = {m.name for m in token.pick([m for models, _ in families for m in models], only)}
    for models, run in families:
        if wanted & {m.name for m in models}:
            for folder in run(only=only):
                typer.echo(folder)


if __name__ == "__main__":
    try:
        app()
    except EarwitnessError as error:
        typer.echo(f"earwitness: {error}", err=True)
        sys.exit(error.exit_code)
