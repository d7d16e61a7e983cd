"""The tables of a page: written to ``results/tables/<experiment>/<name>.csv`` and read back before anything is shown.

``begin`` notes beside them which values they are made with. A page of the registry keeps its tables to itself: a run
with other values, or one that names no values, cannot write them, and tables made with others are not read.

A figure or a sentence can so never show a number that is in no file. The functions here arrange results of the
statistics, and reports, into tables; they add none of their own but the points of a ROC curve (scikit-learn's).
``write`` guards cells against formulas. The book page *How to read a page* says how the files are named.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from earwitness.book.experiments import Page, check_parameters, load_registry, template_parameters
from earwitness.errors import InputError, nearest
from earwitness.signals.evaluations import resolve
from earwitness.stats.units import matching, unit_table
from earwitness.util import PAGE, project_root, results_dir, unguarded, write_csv, write_whole

if TYPE_CHECKING:
    from earwitness.audit.report import Estimate, Report
    from earwitness.audit.verify import Verification

# --- reports as tables ------------------------------------------------------------------------------------------------

_COLUMNS = {
    "verdicts": [
        "model", "control", "verdict", "auc", "auc_low", "auc_high", "p_value", "p_holm", "blind_p", "residual_p",
        "unseen_sd", "smallest_detectable_auc", "n_suspect", "n_held_out", "reasons",
    ],
    "recordings": ["number", "role", "name", "sha256", "score"],
    "checks": ["model", "cause", "material", "audits", "evidence", "evidence_low", "evidence_high", "noticed"],
    "exclusions": ["name", "role", "reason"],
    "mends": ["mend"],
}  # fmt: skip


def _limits(name: str, found: Estimate) -> dict[str, Any]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def frames(report: Report) -> dict[str, pd.DataFrame]:
    """Return the tables of a report: ``verdicts``, ``recordings``, ``checks``, ``exclusions``, ``mends``.

    ``recordings`` holds the score under the first model. ``checks`` has a row for the recordings dealt by lot, and one
    for each cause in which the sides were made to differ.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _COLUMNS}
    for result in report.results:
        plain = {name: getattr(result, name) for name in _COLUMNS["verdicts"] if hasattr(result, name)}
        said = {"control": result.control.name if result.control else "none", "reasons": "; ".join(result.reasons)}
        rows["verdicts"].append(plain | _limits("auc", result.auc) | said)
        if result.level:
            checked = {"cause": "nothing: dealt by lot", "material": "own", "audits": result.level.deals}
            rows["checks"].append({"model": result.model} | checked | _limits("evidence", result.level.rate))
        if result.shifts:
            shared = {"model": result.model, "material": result.shifts.material, "audits": result.shifts.audits}
            for row in result.shifts.rows:
                own = {"cause": row.cause, "noticed": row.noticed}
                rows["checks"].append(shared | own | _limits("evidence", row.evidence))
    for one in report.recordings:
        scored = {"score": one.scores[0] if one.scores else None}
        rows["recordings"].append(one.model_dump(include={"number", "role", "name", "sha256"}) | scored)
    rows["exclusions"] = [one.model_dump() for one in report.exclusions]
    rows["mends"] = [{"mend": text} for text in report.testable.mends]
    return {name: pd.DataFrame(found, columns=_COLUMNS[name]) for name, found in rows.items()}


def lines(found: Verification) -> pd.DataFrame:
    """Return what ``verify`` says about agreement, without the hash, which differs from run to run."""
    return pd.DataFrame({"line": found.lines[:-2]})


# --- which values made the tables -------------------------------------------------------------------------------------

ASKED = ("headline", "headlines", "blind_headline", "fixed_attack", "shown", "costly")  # parameters that name attacks
OWN = {"In", "Out", "exit", "quit", "get_ipython", "open"}  # what a notebook's namespace holds of itself
_BEGUN: dict[str, dict[str, Any]] = {}  # experiment -> values, as this process fixed them


def begin(template: str, names: Mapping[str, Any]) -> None:
    """Check the values of a page before anything is scored, and note them beside the tables it is about to write.

    Parameters
    ----------
    template : str
        File name under ``notebooks/``, without its ending.
    names : mapping
        The notebook's ``globals()``, before it has assigned anything but its parameters. A name that the parameters
        cell does not have can then only come from outside: a mistyped ``-p``.

    Raises
    ------
    InputError
        An unknown parameter, an attack that does not exist, or the id of a page of the registry as ``experiment``
        beside values that are not that page's.
    """
    path = project_root() / "notebooks" / f"{template}.ipynb"
    given = {name: value for name, value in names.items() if not (name.startswith("_") or name in OWN)}
    given = {name: value for name, value in given.items() if not (isinstance(value, ModuleType) or callable(value))}
    if path.is_file():  # elsewhere than in a checkout nothing says which parameters there are
        check_parameters(path, given)
    values = json.loads(json.dumps(given, default=str))
    for name in ASKED:
        wanted = values.get(name)
        if wanted and isinstance(wanted, str | list):
            resolve(wanted)
    experiment = values["experiment"]
    made = {"template": template, "parameters": values}
    page = _registered(experiment)
    if page and made != (expected := _expected(page)):
        raise InputError(
            f"experiment {experiment!r} is a page of the book, made from {page.template} with "
            f"{_differences(expected, made)}; its tables are not overwritten. Give this run a name of its own "
            "(-p experiment my-run), or leave experiment out: tables then go to results/tables/scratch/"
        )
    if _noted(experiment) != made:
        for stale in _path(experiment, "").parent.glob("*.csv"):
            stale.unlink()
    note = _path(experiment, "").with_name(NOTE)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps(made, indent=2) + "\n")
    _BEGUN[experiment] = made


NOTE = "parameters.json"


def _registered(experiment: str) -> Page | None:
    """Return the page that owns an experiment's tables, unless its runner is at work: it gave that page's values."""
    registry = project_root() / "notebooks" / "experiments.yml"
    if os.environ.get(PAGE) == experiment or not registry.is_file():  # by its runner; the library on its own
        return None
    return _pages(project_root(), registry.stat().st_mtime_ns).get(experiment)


@cache
def _pages(root: Path, changed: int) -> dict[str, Page]:
    return {page.id: page for page in load_registry().pages}


def _expected(page: Page) -> dict[str, Any]:
    """Return what the note of a page of the registry says."""
    values = {**template_parameters(page.template_path), **page.all_parameters}
    return {"template": page.template, "parameters": json.loads(json.dumps(values))}


def _noted(experiment: str) -> dict[str, Any] | None:
    """Return which values made an experiment's tables; None where nothing says so."""
    try:
        found: dict[str, Any] = json.loads(_path(experiment, "").with_name(NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("parameters"), dict) else None


def _differences(expected: dict[str, Any], made: dict[str, Any]) -> str:
    """Name the values that differ: "model='a', not 'b'"."""
    one, other = expected["parameters"], made["parameters"]
    differ = [name for name in [*one, *(n for n in other if n not in one)] if one.get(name) != other.get(name)]
    said = [f"{name}={one.get(name)!r}, not {other.get(name)!r}" for name in differ]
    return "; ".join(said) or f"the template {expected['template']}, not {made['template']}"


def agree(experiments: Sequence[str], **values: Any) -> None:
    """Refuse experiments whose tables were made with other values than these, such as ``model="pocket/musicgen-b"``."""
    for experiment in experiments:
        noted = _noted(experiment)
        if noted is None:
            raise InputError(f"results/tables/{experiment} does not say which values made it; run that page again")
        for name, value in values.items():
            held = noted["parameters"].get(name)
            if held != value:
                raise InputError(
                    f"the tables of {experiment!r} were made with {name}={held!r}, and this page is about "
                    f"{name}={value!r}; give both the same value"
                )


# --- tables of a page -------------------------------------------------------------------------------------------------

# Streams in words; a column that says "null" would be read back as missing.
TOLD = {"conditional": "the caption", "null": "nothing", "audio": "the sound's own embedding"}


def _path(experiment: str, name: str) -> Path:
    """Return where a table lies; an experiment is one folder, so that no other way of writing it reaches a page's."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", str(experiment)):
        raise InputError(f"experiment: expected a name of letters, digits, - and _, got {experiment!r}")
    return results_dir() / "tables" / str(experiment) / f"{name}.csv"


def source(experiment: str, name: str) -> str:
    """Return how a page names a table: ``results/tables/<experiment>/<name>.csv``."""
    return f"results/tables/{experiment}/{name}.csv"


def write(frame: pd.DataFrame, experiment: str, name: str) -> pd.DataFrame:
    """Write a table, whole or not at all, to six significant digits; return it as read back from the file.

    In the file, text that a spreadsheet would run as a formula has an apostrophe before it; reading takes it away.

    Raises
    ------
    InputError
        A page of the registry that ``begin`` has not fixed the values of, or one whose folder another run has taken
        over with other values.
    """
    path = _path(experiment, name)
    begun = _BEGUN.get(experiment)
    if begun is None and _registered(experiment):
        raise InputError(
            f"{source(experiment, name)} belongs to a page of the book, which alone writes it; name another experiment"
        )
    if begun is not None and _noted(experiment) not in (begun, None):
        raise InputError(
            f"results/tables/{experiment}: another run with other values writes there now; "
            "start this one again with a name of its own (-p experiment my-run)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(frame, path, float_format="%.6g")
    return read(experiment, name)


def read(experiment: str, name: str) -> pd.DataFrame:
    """Read a table of this or another experiment.

    Raises
    ------
    InputError
        A table that does not exist, or one of a page of the registry that was made with other values than its entry
        names.
    """
    path = _path(experiment, name)
    if path.is_file() and experiment not in _BEGUN and (page := _registered(experiment)):
        made = _noted(experiment)
        if made != (expected := _expected(page)):
            told = f"made with other values ({_differences(expected, made)})" if made else "made with unknown values"
            raise InputError(f"{source(experiment, name)} was {told}; run the page {experiment!r} again first")
    if not path.is_file():
        found = sorted(file.stem for file in path.parent.glob("*.csv")) if path.parent.is_dir() else []
        has = f"has {', '.join(found)}{nearest(name, found)}" if found else "has no tables yet; run its page first"
        raise InputError(f"no table {source(experiment, name)}: experiment {experiment!r} {has}")
    return _loaded(path)


def _loaded(path: Path) -> pd.DataFrame:
    # "null" is the name of a stream, not a gap
    return unguarded(pd.read_csv(path, keep_default_na=False, na_values=[""]))


def listed(experiments: Sequence[str]) -> pd.DataFrame:
    """List the tables that pages have written: ``page, table, rows, source``."""
    rows = [
        {"page": name, "table": path.stem, "rows": len(_loaded(path)), "source": source(name, path.stem)}
        for name in experiments
        for path in sorted(_path(name, "").parent.glob("*.csv"))
    ]
    return pd.DataFrame(rows, columns=["page", "table", "rows", "source"])


def pick(table: pd.DataFrame, attacks: str | Sequence[str]) -> pd.DataFrame:
    """Return the rows of the named attacks (ids or globs), in the order of the table."""
    chosen = matching(table["attack"].drop_duplicates().to_list(), attacks)
    return table[table["attack"].isin(chosen)].reset_index(drop=True)


def per_unit(scores: pd.DataFrame, attacks: str | Sequence[str]) -> pd.DataFrame:
    """Return one row per track and attack: ``unit``, ``artist``, ``attack``, ``role`` (member, nonmember), ``score``.

    Units, segments and means are those that ``ew.compare`` uses.
    """
    held = unit_table(scores)
    chosen = matching(held.attacks, attacks)
    wide = pd.DataFrame(held.columns(chosen), columns=chosen)
    wide.insert(0, "unit", held.units)
    wide.insert(1, "artist", held.artists)
    wide.insert(2, "role", pd.Series(held.positive).map({True: "member", False: "nonmember"}))
    return wide.melt(id_vars=["unit", "artist", "role"], var_name="attack", value_name="score")


def roc_points(units: pd.DataFrame) -> pd.DataFrame:
    """Return the ROC points of each attack of a ``per_unit`` table: ``attack``, ``fpr``, ``tpr``, ``threshold``."""
    from sklearn.metrics import roc_curve

    frames = []
    for attack, rows in units.dropna(subset="score").groupby("attack", sort=False):
        fpr, tpr, threshold = roc_curve(rows["role"] == "member", rows["score"])
        frames.append(pd.DataFrame({"attack": attack, "fpr": fpr, "tpr": tpr, "threshold": threshold}))
    return pd.concat(frames, ignore_index=True)


def timesteps(compared: pd.DataFrame, units: pd.DataFrame) -> pd.DataFrame:
    """Arrange the rows of ``multiple_loss`` by timestep: what each gives away, and how far the mean losses are apart.

    Parameters
    ----------
    compared : pandas.DataFrame
        From ``ew.compare``.
    units : pandas.DataFrame
        From ``per_unit``, for the same attacks.

    Returns
    -------
    pandas.DataFrame
        ``told`` (what the network was told, in words), ``timestep`` (thousandths of the schedule), ``auc_within`` with
        limits, ``loss_member``, ``loss_nonmember`` (mean norm of the prediction error), ``gap`` (share by which
        members' is smaller).
    """
    where = compared["attack"].str.extract(r"^multiple_loss-(?P<timestep>\d+)/(?P<stream>.+)$")
    rows = compared.join(where).dropna(subset="timestep").astype({"timestep": int})
    if rows.empty:
        raise InputError("no row of multiple_loss at any timestep; score a diffusion model with that attack")
    loss = -units.pivot_table(index="attack", columns="role", values="score")
    rows = rows.assign(
        loss_member=rows["attack"].map(loss["member"]), loss_nonmember=rows["attack"].map(loss["nonmember"])
    )
    rows["gap"] = 1 - rows["loss_member"] / rows["loss_nonmember"]
    rows["told"] = rows["stream"].map(TOLD)
    shown = ["told", "timestep", *(f"{auc}{limit}" for auc in ("auc_within", "auc") for limit in ("", "_low", "_high"))]
    ordered = rows.sort_values(["stream", "timestep"], ignore_index=True)
    return ordered[[*shown, "loss_member", "loss_nonmember", "gap"]]


def audits(scores: pd.DataFrame, **options: Any) -> pd.DataFrame:
    """Audit every artist on its own and return one row each, in order of the names.

    Many audits are many chances of a false alarm: the verdicts hold at level alpha after Holm's correction over all
    of them.

    Parameters
    ----------
    scores : pandas.DataFrame
        Score table with suspects and held-out tracks of each.
    **options
        Passed to ``ew.infer``.

    Returns
    -------
    pandas.DataFrame
        ``artist``, ``verdict``, ``auc`` and ``hedges_g`` with limits, ``p_value``, ``p_holm``, ``p_direction``,
        ``blind_p``, ``residual_p`` (all but ``p_holm`` without correction), ``e_value``,
        ``smallest_detectable_auc`` (at the level that Holm's correction leaves), ``n_suspect``, ``n_held_out``,
        ``n_segments`` and ``reasons``.
    """
    from earwitness.stats import infer
    from earwitness.stats.multiple_testing import holm_verdicts
    from earwitness.stats.verdict import ALPHA

    results = {str(name): infer(part, **options) for name, part in scores.groupby("artist", sort=True)}
    rows = []
    for name, decided in holm_verdicts(results, alpha=options.get("alpha", ALPHA)).items():
        result = results[name]
        row: dict[str, Any] = {"artist": name, "verdict": decided.verdict, "p_holm": decided.parameters["p_holm"]}
        for effect in ("auc", "hedges_g"):
            held = getattr(result, effect)
            row |= {effect: held.value, f"{effect}_low": held.low, f"{effect}_high": held.high}
        row |= {key: getattr(result, key) for key in ("p_value", "p_direction", "residual_p", "e_value")}
        row["blind_p"] = result.blind.p_value if result.blind else None
        row |= {
            key: getattr(decided, key) for key in ("smallest_detectable_auc", "n_suspect", "n_held_out", "n_segments")
        }
        rows.append(row | {"reasons": "; ".join(decided.reasons)})
    return pd.DataFrame(rows)


def tally(table: pd.DataFrame) -> pd.DataFrame:
    """Count the verdicts of each group: ``group``, ``audits``, ``evidence``, ``no evidence``, ``not testable``."""
    words = ["evidence", "no evidence", "not testable"]
    counts = pd.crosstab(table["group"], table["verdict"]).reindex(columns=words, fill_value=0)
    counts = counts.reindex(table["group"].drop_duplicates())
    counts.insert(0, "audits", counts.sum(axis=1))
    return counts.rename_axis(columns=None).reset_index()


# --- how measurements grow --------------------------------------------------------------------------------------------

SCALE = "benchmarks/scale.csv"


def measured_scale() -> pd.DataFrame:
    """Return what ``benchmarks/bench_scale.py`` measured: ``step, size, cpu_s, peak_mb`` (10^6 bytes)."""
    return pd.read_csv(project_root() / SCALE)


def growth(measured: pd.DataFrame) -> pd.DataFrame:
    """Return what each step took at the largest size, and with which power of the size it grows.

    Parameters
    ----------
    measured : pandas.DataFrame
        Columns ``step, size, cpu_s, peak_mb``; two sizes or more of a step, all above 0.

    Returns
    -------
    pandas.DataFrame
        One row per step: ``step, size, cpu_s, peak_mb``; ``time_exponent, memory_exponent`` (slopes of the logarithms
        over all sizes); ``last_time_exponent`` (between the two largest: the costs of starting do not hide growth).
    """
    rows = []
    for step, one in measured.groupby("step", sort=False):
        held = one.sort_values("size")[["size", "cpu_s", "peak_mb"]]
        size, *grown = np.log(held.to_numpy(dtype=float)).T
        time, memory = (np.polyfit(size, values, 1)[0] for values in grown)
        exponents = {"time_exponent": time, "memory_exponent": memory}
        exponents["last_time_exponent"] = np.diff(grown[0])[-1] / np.diff(size)[-1]
        rows.append({"step": step} | held.iloc[-1].to_dict() | exponents)
    return pd.DataFrame(rows).astype({"size": int})
