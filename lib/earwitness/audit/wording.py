"""The sentences of a report: what a judge reads first, and what would make an audit testable.

Book page: *Audit your own*.
"""

from __future__ import annotations

from collections.abc import Sequence

from earwitness.audit.report import Result, Side, Testable, Word
from earwitness.stats.verdict import GATE_P

MENDS = {
    "no suspects": "Add suspects that can be used; those that were left out are listed below, each with its reason.",
    "no held-out": (
        "Add held-out recordings that can be used; those that were left out are listed below, each with its reason."
    ),
    "no artist is on both sides": (
        "Give held-out recordings by the same artists as the suspects, or folders of other artists with "
        "--reference-artists, among whom the suspects can be ranked."
    ),
    "too few": "Add recordings: the rule needs at least {needed} that can be used on each side.",
    "never touch": (
        "Choose held-out recordings that differ from the suspects in nothing but training: the same years, "
        "instruments, mastering and file format. Export both sides anew from the same kind of source, by the same "
        "program."
    ),
    "shift alarm": (
        "Were the two folders exchanged? If not, look for what sets the two sides apart (mastering, instruments, "
        "copies of the suspects or other training data among the held-out) and choose other held-out recordings."
    ),
    "does not survive": (
        "Choose held-out recordings that are closer to the suspects in sound and format, or use a control model that "
        "was trained on neither side."
    ),
    "no usable blind": "Give recordings that differ among themselves; identical ones tell nothing.",
}
REASONS = {
    "no suspects": "none of the recordings in question can be used",
    "no held-out": "none of the held-out recordings can be used",
    "no artist is on both sides": "no artist is on both sides, so that artists would be compared instead of training",
    "too few": "there are too few recordings",
    "never touch": "the two sets can be told apart by properties that have nothing to do with the model",
    "shift alarm": "the two sets differ, but not in the way that training would cause",
    "does not survive": "the difference disappears once the recordings' own properties are allowed for",
    "no usable blind": "nothing could be measured that would rule out a difference between the two sets",
}


def mends(reasons: Sequence[str], needed: int) -> list[str]:
    """Return what would make an audit testable, for the reasons why it is not."""
    return [text.format(needed=needed) for key, text in MENDS.items() if any(key in reason for reason in reasons)]


def _short(reasons: Sequence[str]) -> str:
    """Return the reasons in words that need no statistics."""
    known = [text for key, text in REASONS.items() if any(key in reason for reason in reasons)]
    return " and ".join(known) or "; ".join(reasons)


def chance(p: float) -> str:
    """Return a p-value as odds: "in about one of 5,000"."""
    return f"in about one of {round(1 / p, 2 - len(str(int(1 / p)))):,.0f}"


def times(count: int) -> str:
    """Return a count of events: "never", "once", "12 times"."""
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def amount(value: float | None) -> str:
    """Return a number for people, to two digits and without powers of ten: "0.37", "4.2", "110,000,000"."""
    if value is None:
        return "–"
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def sentence(result: Result) -> str:
    """Return the answer for one model."""
    n, m, name = result.n_suspect, result.n_held_out, result.model
    if result.verdict == "evidence":
        p = result.p_holm if result.p_holm is not None else result.p_value
        return (
            f"There is evidence that {name} was trained on these recordings: it treats the {n} in question differently "
            f"from {m} that it cannot have heard, in the way that training would cause and nothing measured about the "
            f"recordings explains. If training had made no difference, so large a difference would arise "
            f"{chance(p or 1)} comparisons like this one."
        )
    if result.verdict == "no evidence":
        return (
            f"There is no evidence that {name} was trained on these recordings: it does not treat the {n} in question "
            f"measurably differently from {m} that it cannot have heard. This is not proof that it was not: a trace "
            f"weaker than the one named below would have gone unseen."
        )
    return f"These recordings cannot answer whether {name} was trained on them: {_short(result.reasons)}."


def plainly(result: Result) -> str:
    """Return the answer for one model in words that need no statistics."""
    if result.verdict == "evidence":
        return (
            f"There is evidence that {result.model} was trained on these recordings: taken together they are more "
            "familiar to it than comparable recordings that it cannot have heard, by more than chance explains."
        )
    if result.verdict == "no evidence":
        return (
            f"There is no evidence that {result.model} was trained on these recordings: taken together they are not "
            "measurably more familiar to it than comparable recordings that it cannot have heard."
        )
    return sentence(result)


def unseen(results: Sequence[Result]) -> str:
    """Say whether the two sets differ by measurements that need no model."""
    known = [result.blind_p for result in results if result.blind_p is not None]
    if not known:
        return "Whether the two sets differ in themselves was not measured."
    differ = min(known) <= GATE_P
    return (
        "Measured without the model (loudness, spectrum, format, length), the two sets "
        f"{'differ in themselves, so that nothing can be concluded' if differ else 'cannot be told apart'}."
    )


def of_100(share: float | None) -> str:
    """Return a rate as cases in a hundred: "fewer than 1 of 100", "67 of 100"."""
    if share is None:
        return "an unknown number of 100"
    return "fewer than 1 of 100" if share < 0.01 else f"{100 * share:.0f} of 100"


def errors(results: Sequence[Result], *, paired: bool) -> list[str]:
    """Return both error rates in words: sides dealt by lot, and sides that differ where no measurement looks."""
    found = []
    for result in results:
        of = f"{result.model}: " if len(results) > 1 else ""
        if level := result.level:
            found.append(
                f"{of}Dealt to the two sides at random, these recordings were called evidence in "
                f"{of_100(level.rate.value)} cases ({times(level.evidence)} in {level.deals}; at most "
                f"{of_100(level.rate.high)}, with 95% confidence). This does not cover a real difference between them."
            )
        if result.shifts and (hidden := [row.evidence.value or 0.0 for row in result.shifts.rows if row.hidden]):
            where = "these recordings" if result.shifts.material == "own" else "a small reference collection"
            found.append(
                f"{of}If the two sets differed in something that nothing we measure shows, by as much as can go "
                f"unnoticed, up to {of_100(max(hidden))} comparisons would be called evidence although nothing was "
                f"trained on (measured on {where})."
            )
    if found:
        return found
    if paired and any(result.p_value is not None for result in results):
        return [
            "Takes of one work were compared. By chance alone, at most 1 of 100 comparisons would be called evidence; "
            "how often a difference other than training would be, was not measured."
        ]
    return ["No rate can be given: the model was not asked."]


def overall(results: Sequence[Result]) -> Word:
    """Return the word over several models: the strongest of theirs."""
    words = {result.verdict for result in results}
    order: tuple[Word, ...] = ("evidence", "no evidence", "not testable")
    return next(word for word in order if word in words)


def answer(results: Sequence[Result]) -> str:
    """Return the answer for all models, a sentence or two each."""
    return " ".join(sentence(result) for result in results)


def sides(suspects: Side, held_out: Side) -> str:
    """Return what was compared, in a sentence."""

    def one(side: Side) -> str:
        formats = ", ".join(f"{count} {name.upper().lstrip('.')}" for name, count in side.formats.items())
        minutes = "" if side.minutes is None else f", {side.minutes:.0f} minutes" if side.minutes >= 1 else ""
        return f"{side.tracks} recordings ({formats}{minutes})"

    return f"{one(suspects)} in question against {one(held_out)} held out."


def testable_line(testable: Testable) -> str:
    """Return the last line of ``check``: yes or no, and because of what."""
    if not testable.answer:
        more = "".join(f" {mend}" for mend in testable.mends)
        return f"Can this be tested? No, because {_short(testable.reasons)} ({'; '.join(testable.reasons)}).{more}"
    gate = f"the gate stays open (p = {testable.blind_p:.2f})" if testable.blind_p is not None else "the gate waits"
    return (
        f"Can this be tested? Yes, because there are enough recordings and {gate}. Once a model has heard them the "
        "audit asks again whether they explain the difference, and may still say not testable."
    )


def before(testable: Testable, *, paired: bool) -> str:
    """Return what could be said before any model was run; ``paired``: works are compared in pairs."""
    if not testable.answer:
        return f"Before any model was run it was clear that this cannot be tested: {_short(testable.reasons)}."
    seen = f"{testable.smallest_detectable_auc:.2f}" if testable.smallest_detectable_auc is not None else "?"
    scale = "the share of pairs whose suspect scores above its own twin; " if paired else ""
    apart = "the recordings by themselves do not clearly tell the two sides apart"
    if testable.blind_p is None:
        apart = "whether the recordings by themselves tell the two sides apart is asked once they are scored"
    return (
        f"There are enough to test: a difference as large as AUC {seen} ({scale}0.5 is none, 1 is complete) would be "
        f"found four times in five, and {apart}."
    )
