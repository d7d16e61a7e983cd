"""What ``earwitness new attack|experiment|artist NAME`` writes: something small that runs, wherever it is needed.

Everything is worked out before anything is written, so that a name that cannot be used leaves no half of it behind.
CONTRIBUTING says what to do with it then; a test follows it to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import yaml
from pydantic import ValidationError

from earwitness.book.experiments import Registry
from earwitness.errors import InputError, nearest
from earwitness.signals.evaluations import ATTACKS
from earwitness.util import project_root, write_whole

FUNCTION = '''

@attack(
    "{name}",
    formula=r"\\operatorname{{median}}_n\\, l_n",
    source="nobody yet",
    sign="ours",
)
def {name}(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Median of the log-probabilities: say here what is measured, and why a member should score higher."""
    values = signals.series("logp", stream, codebook)
    return float(np.median(values)) if values.size else nan
'''
PARAGRAPH = """**{{py:func}}`{name} <earwitness.attacks.token.{name}>`**. The median of the $l_n$: say here what it
measures, and why a member should score higher.

"""
ENTRY = """
  - id: {name}
    template: mia_token
    title: "{name}: the title of the page"
    part: Results
    badge: pocket
    parameters: {{model: pocket/musicgen-b, headline: zlib/conditional}}
    scores:
      - {{model: pocket/musicgen-b, manifest: data_manifests/pocket.csv, splits: [b, neither, never-1, never-2]}}
"""
ROWS = """path,role,artist,work,caption
suspects/first-song.wav,suspect,{name},first song,
held_out/unreleased-song.wav,held_out,{name},unreleased song,
"""
CARD = """title: Audit of {name}
version: 1
licence: not stated
citation: not stated
membership: "unknown: an audit's suspects and held-out recordings"
"""


def _attack(name: str, root: Path) -> dict[Path, str]:
    if name in ATTACKS or not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", name):
        raise InputError(f"expected a new name of lower-case letters, digits and _, got {name!r}; choose another")
    lib, tests = root / "lib" / "earwitness", root / "tests" / "attacks" / "test_token.py"
    methods, table = root / "book" / "methods" / "attacks.md", lib / "signals" / "evaluations.py"
    where = lib / "attacks" / "token.py"
    return {
        table: _before('        _beside("reference", ', f'        _on_tokens("{name}"),\n', table),
        where: where.read_text(encoding="utf-8") + FUNCTION.format(name=name),
        tests: _before('    "camia_lz": twin_lz,', f'    "{name}": lambda r: float(np.median(logs(r))),\n', tests),
        methods: _before("## The guidance contrast", PARAGRAPH.format(name=name), methods),
    }


def _before(mark: str, text: str, path: Path) -> str:
    """Return a file's text with a piece before its first mark."""
    held = path.read_text(encoding="utf-8")
    if mark not in held:
        raise InputError(f"{path.name}: expected the line {mark.strip()!r}, found none; add the attack by hand")
    return held.replace(mark, text + mark, 1)


def _experiment(name: str, root: Path) -> dict[Path, str]:
    _refuse_odd(name)
    path = root / "notebooks" / "experiments.yml"
    text = path.read_text(encoding="utf-8").rstrip("\n") + "\n" + ENTRY.format(name=name)
    try:
        Registry.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise InputError(f"{name!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return {path: text}


def _refuse_odd(name: str, *, taken: bool = False) -> None:
    if taken or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise InputError(f"expected a new name of lower-case letters, digits and hyphens, got {name!r}; choose another")


def _artist(name: str, root: Path) -> dict[Path, str]:
    path = root / "data_manifests" / "artists" / f"{name}.csv"
    _refuse_odd(name, taken=path.exists())
    return {path: ROWS.format(name=name), path.with_suffix(".card.yml"): CARD.format(name=name)}


KINDS: dict[str, tuple[Callable[[str, Path], dict[Path, str]], str]] = {
    "attack": (_attack, "put your formula into each; add a value worked by hand to GOLDEN; make test; make book"),
    "experiment": (_experiment, "change the entry; make book: the contents follow from it"),
    "artist": (_artist, "list your recordings; earwitness check --manifest FILE --model MODEL"),
}


def write(kind: str, name: str) -> list[str]:
    """Write the skeleton of an attack, an experiment or an artist; return a line for each file, and what to do next.

    Raises
    ------
    InputError
        An unknown kind, a name that is taken or cannot be one, or a project without the places where it belongs.
    """
    if kind not in KINDS:
        raise InputError(f"expected {', '.join(KINDS)}, got {kind!r}{nearest(kind, KINDS)}")
    make, then = KINDS[kind]
    root = project_root()
    try:
        texts = make(name, root)
    except OSError as error:
        raise InputError(f"{error.filename}: not found; run this in the project's folder") from None
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    return [*(f"wrote {path.relative_to(root)}" for path in texts), f"next: for {name}, {then}"]
