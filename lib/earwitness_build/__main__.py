"""``python -m earwitness_build``: train the pocket models again from nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from earwitness.errors import exit_with_one_line
from earwitness_build.training import figaro as symbolic
from earwitness_build.training import latent_diffusion as diffusion
from earwitness_build.training import train as token

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train the pocket models again.")


@app.callback()
def commands() -> None:
    """Recipes that no user of the library needs."""


@app.command()
def train(only: Annotated[str | None, typer.Option(help="one model, for example musicgen-a")] = None) -> None:
    """Train the pocket models and save them as package data."""
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
    with exit_with_one_line():
        app()
