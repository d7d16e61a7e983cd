"""What the page *Methods: models* draws: the cards, and what each published repository took at its real size.

``python -m earwitness.book.model_page PAGE`` writes both between the two marks that the page holds, from ``cards.yml``
and from ``benchmarks/real_size.csv``, which ``benchmarks/bench_real_size.py`` writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from earwitness.audit.cost import evaluations, hours
from earwitness.models.cards import ModelCard, read_cards, told_by
from earwitness.util import project_root, span

COMMITS = (
    "*Commit* is the hub's commit that holds the weights, as far as its history could be read (`hf download NAME "
    "--revision COMMIT`); *unknown* means that nobody here has seen it. Whatever was fetched, scores and reports are "
    "keyed by the hash of the files: keep it, and the commit with it."
)
BEGIN, END = "% What follows is written by python -m earwitness.book.model_page", "% End of what is written"
MEASURED = "benchmarks/real_size.csv"
LAYOUTS = {
    "transformers": "transformers", "audiocraft": "audiocraft", "both": "transformers or audiocraft",
    "diffusers": "diffusers", "stable-audio-tools": "stable-audio-tools", "tango": "its authors' own",
    "figaro": "Lightning", "miditok": "transformers, miditok",
}  # fmt: skip
HOW = (
    "Built at real size with random weights, in the published layout: loaded by name like any folder, then clips were "
    "scored for an audit, captions given. *A clip* is processor seconds on one core, as a multiple of encoding and the "
    "bare distinct passes of the same clips; *memory* is the largest of the process, mapped weights included. What was "
    "not built is read in tests on small checkpoints of the same layout; its cost is reckoned from its size, for 40 "
    "recordings of four minutes on two cores. No published weights were run."
)


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def _reckoned(card: ModelCard) -> str:
    taken = hours(card.name, evaluations("audit", told_by(card))[1], 40 * 240.0) if card.channels else None
    return f"about {span(3600 * taken)}" if taken else "unknown"


def sizes(measured: pd.DataFrame) -> list[str]:
    """Return a table of the published repositories: layout, whether they load, what scoring took, licence."""
    rows = []
    for card in (card for card in read_cards().models if not card.name.startswith("pocket/")):
        held = measured[measured["model"] == card.name]
        taken = [
            f"{row.dtype}: loaded in {row.load_s:.3g} s, a clip {row.clip_s:.3g} s, {row.ratio:.3g} ×, "
            f"{row.peak_gb:.2g} GB"
            for row in held.itertuples()
        ]
        loads = f"at real size, {held['date'].max()} (`{held['commit'].iloc[-1]}`)" if len(held) else "a small one"
        rows.append([f"`{card.name}`", LAYOUTS[card.format], loads, "; ".join(taken) or _reckoned(card), card.licence])
    machines = ", ".join(sorted(set(measured["machine"])))
    return [
        "### At real size", "", f"{HOW} Measured on: {machines or 'nothing yet'}.", "",
        *_table(["repository", "layout", "loads", "cost", "licence"], rows), "", "### Cards", "",
    ]  # fmt: skip


def _row(card: ModelCard) -> list[str]:
    cards, channels = read_cards(), ("", "mono", "stereo")[card.channels]
    audio = f"{card.sample_rate / 1000:g} kHz {channels}" if channels else "notes"
    return [
        f"`{card.name}`", card.format, card.size, audio,
        f"{card.segment_seconds:g} s" if channels else "a window", cards.nulls[card.null_condition], card.encoder,
        card.licence, card.revision, cards.corpora[card.corpus].title, ", ".join(card.sources),
    ]  # fmt: skip


def markdown() -> str:
    """Return the cards as a table of models and a list of corpora."""
    cards = read_cards()
    columns = ["model", "format", "size", "audio", "segment", "null condition", "text encoder", "weights' licence"]
    lines = _table([*columns, "commit", "trained on", "sources"], [_row(card) for card in cards.models])
    lines += ["", COMMITS, "", "### What the licences say about an audit", ""]
    lines += [f"- *{name}*: {what}" for name, what in cards.licences.items()]
    for corpus in cards.corpora.values():
        lines += ["", f"### {corpus.title}", "", f"**Training data.** {corpus.training}", ""]
        lines += [f"**Member.** {corpus.member}", "", f"**Non-member.** {corpus.nonmember}", ""]
        lines += [f"**Traps.** {corpus.traps} *Sources: {', '.join(corpus.sources)}.*"]
    lines += ["", "Sources: " + "; ".join(f"*{name}*, {what}" for name, what in cards.sources.items()) + "."]
    return "\n".join(lines)


def written(page: str, measured: pd.DataFrame) -> str:
    """Return a page's text with what is between its marks brought up to date."""
    head, _, rest = page.partition(f"{BEGIN}\n")
    _, mark, tail = rest.partition(END)
    if not mark:
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r} in the page")
    drawn = "\n".join([*sizes(measured), markdown()])
    return f"{head}{BEGIN}\n\n{drawn}\n\n{END}{tail}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        found = pd.read_csv(project_root() / MEASURED)
        Path(name).write_text(written(Path(name).read_text(encoding="utf-8"), found), encoding="utf-8")
