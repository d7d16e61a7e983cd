"""The plan of an audit, fixed before anything is scored, and the record of the runs on the same recordings.

A plan holds what could otherwise be chosen after looking: which recordings on which side, which models, features,
level and seed. ``earwitness plan --freeze FILE`` writes it; ``earwitness audit --frozen FILE`` refuses to run
anything else and says in the report that it was checked. Runs are counted as well, because asking often is how an
honest test is made to lie.

Book page: *Audit your own*.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from earwitness.errors import InputError
from earwitness.util import digest, placed, reason_of, results_dir, sha256, write_new


class Plan(BaseModel):
    """What is fixed before scoring.

    ``manifest_hash`` covers the files' hashes and roles, ``texts_hash`` captions, artists and works; ``models`` and
    ``control`` map names to the hash of their weights; ``features`` maps each family to its list;
    ``references_hash`` covers the recordings of reference artists, if there are any; ``dtype`` is not written where it
    is float32, as in plans of earlier versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    frozen_at: str = ""
    manifest_hash: str
    texts_hash: str
    suspects: int
    held_out: int
    models: dict[str, str]
    control: dict[str, str]
    features: dict[str, list[str]]
    features_hash: str
    alpha: float
    permutations: int
    seed: int
    pairs: str
    references_hash: str = ""
    dtype: str = Field(default="float32", exclude_if="float32".__eq__)
    earwitness: str

    def digest(self) -> str:
        """Return the SHA-256 of everything but the date."""
        return digest(self.model_dump(exclude={"frozen_at"}))


def write(plan: Plan, path: Path) -> Plan:
    """Write a plan with today's date; refuse to write over another one.

    Raises
    ------
    InputError
        The file exists, or cannot be written.
    """
    dated = plan.model_copy(update={"frozen_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")})
    try:
        write_new(path, dated.model_dump_json(indent=2) + "\n")
    except FileExistsError:
        raise InputError(f"{path}: expected a new file, found one; a frozen plan is never written over") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({reason_of(error)}); choose another place") from None
    return dated


ANEW = "with ew.plan(...).freeze (plan --freeze)"


def read(path: Path) -> Plan:
    """Read a frozen plan; raise InputError where it is none."""
    try:
        return Plan.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: expected a frozen plan, {reason_of(error)}; write one {ANEW}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a frozen plan (not UTF-8); write one {ANEW}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{path}: {where}: {first['msg']}; not a frozen plan, or another version of Earwitness wrote it and "
            f"is the one to run it; write one for this version {ANEW}"
        ) from None


def check(frozen: Plan, now: Plan) -> None:
    """Refuse to go on where the audit at hand is not the one that was frozen.

    Raises
    ------
    InputError
        Naming every part that differs.
    """
    named = {
        "manifest_hash": "the recordings or their sides",
        "texts_hash": "captions, artists or works",
        "models": "the models or their weights",
        "control": "the control model",
        "features": "the features",
        "features_hash": "the features",
        "alpha": "the level",
        "permutations": "the number of relabellings",
        "seed": "the seed",
        "pairs": "the pairing",
        "references_hash": "the reference artists",
        "dtype": "the type of number",
        "earwitness": "the version of Earwitness",
    }
    differs = {name: getattr(frozen, name) != getattr(now, name) for name in named}
    changed = list(dict.fromkeys(words for name, words in named.items() if differs[name]))
    if changed:
        raise InputError(
            f"this is not the audit that was frozen on {frozen.frozen_at}: {', '.join(changed)} changed since; run it "
            "as frozen, or freeze a new plan and report both"
        )


def run_log(frozen: Path | None) -> list[Path]:
    """Return the files in which runs are recorded: in the results, and beside the frozen plan if there is one."""
    own = results_dir() / "audits" / "runs.jsonl"
    return [own] if frozen is None else [own, frozen.with_name(f"{frozen.name}.runs.jsonl")]


def check_logs(logs: Iterable[Path]) -> None:
    """Refuse records of runs that cannot be read and added to: without them nobody is shown an answer.

    Raises
    ------
    InputError
        Naming the file.
    """
    for log in logs:
        try:
            if log.exists():
                log.open("a+b").close()
            else:  # the record is made with the first run: an audit that is stopped leaves none behind
                tempfile.TemporaryFile(dir=next(place for place in log.absolute().parents if place.exists())).close()
        except OSError as error:
            raise InputError(
                f"{log}: this record of runs cannot be written ({reason_of(error)}); make its folder writable"
            ) from None


def earlier_runs(suspects: Iterable[str], logs: Iterable[Path]) -> list[Mapping[str, Any]]:
    """Return the recorded runs that had at least one of these suspects (file hashes), each once, oldest first."""
    return [entry for entry in _recorded(suspects, logs) if entry.get("verdict") not in LOOKS]


def looks(suspects: Iterable[str], logs: Iterable[Path]) -> set[str]:
    """Return the selections of recordings with at least one of these suspects that ``check`` was run on."""
    return {str(entry.get("plan")) for entry in _recorded(suspects, logs) if entry.get("verdict") in LOOKS}


def _recorded(suspects: Iterable[str], logs: Iterable[Path]) -> list[Mapping[str, Any]]:
    mine = {content[:16] for content in suspects}
    found: dict[str, Mapping[str, Any]] = {}
    for log in logs:
        found |= {str(entry.get("id")): entry for entry in _entries(log) if mine & set(entry["suspects"])}
    return sorted(found.values(), key=lambda entry: str(entry.get("date")))


def _entries(log: Path) -> list[dict[str, Any]]:
    """Return the runs of a log; a line that a crash cut short or damaged counts as none."""
    entries = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []:
        try:
            entry = json.loads(line)
            set(entry["suspects"])
        except (ValueError, KeyError, TypeError):
            continue
        entries.append(entry)
    return entries


def record_run(plan: Plan, suspects: Iterable[str], verdict: str, logs: Iterable[Path]) -> None:
    """Append a run to the logs; one that a log has already, with the same plan and answer, is not added to it."""
    _record(plan.digest(), plan.models, suspects, verdict, logs)


LOOKS = ("a look: cannot be tested", "a look: can be tested")


def record_look(content: str, suspects: Iterable[str], testable: bool, logs: Iterable[Path]) -> None:
    """Append a look at the gate to the logs: a selection of recordings, its hash, and what the gate said of it."""
    _record(content, {}, suspects, LOOKS[testable], logs)


def _record(plan: str, models: dict[str, str], suspects: Iterable[str], verdict: str, logs: Iterable[Path]) -> None:
    now = datetime.now(UTC)
    entry = {
        "id": sha256(f"{now.isoformat()} {plan}")[:16],
        "date": now.strftime("%Y-%m-%d %H:%M UTC"),
        "plan": plan,
        "models": models,
        "verdict": verdict,
        "suspects": sorted(content[:16] for content in suspects),
    }
    same = {name: entry[name] for name in ("plan", "verdict", "suspects")}
    for log in logs:
        if any(same.items() <= old.items() for old in _entries(log)):
            continue
        log.parent.mkdir(parents=True, exist_ok=True)
        with placed(log), log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
