"""The default features: one frozen list per family, fixed before anything is scored.

Choosing features on the data they are tested on would void the level; these are chosen on one pocket twin and
reported on the other. An audit with any other list says so (*exploratory*). The hash goes into every result.

The token list was chosen on twin a alone (its 12 artists, 20 members against 20 non-members each): three attacks that
divide or cut the log-probability differently, with and without the caption. Power of the primary test at .01 with only
12 against 12 tracks: .84 for this list, .53 for loss, hinge, log rank, zlib and both Min-K% with and without guidance
contrast, .46 for those six without it, .74 for zlib alone: more of what is much alike adds noise, not signal. The
ridge constant hardly matters (.84 to .85 between .1 and 3) and was left as it was.

The diffusion list was chosen in the same way on diffusion twin a alone, among the cheap passes (7 network evaluations a
segment are enough for it): the loss over five noises, and how much noise the network sees in the clean latent. Power at
.01 with 12 against 12 tracks of one artist: .63 for this list, .60 for either alone, .52 with the losses at t = 100,
200, 300 in place of the first, .50 with PIA and losses added, .38 for all 16 cheap scores with the caption.

The symbolic list was chosen in the same way on symbolic twin a alone, among subsets of eight attacks: how well
velocities are foreseen (q3; pocket music draws them evenly, so they can be remembered and not guessed), and two of
CAMIA's. Power at .01 with only 12 against 12 pieces of one artist: .88 for this list, .91 with log rank added, .86 for
the best subset without the velocities, .75 and .61 for CAMIA's two alone. The choice was made on a twin trained for
five passes instead of eight, and kept.

Book page: *Dataset inference*.
"""

from __future__ import annotations

from collections.abc import Sequence

from earwitness.errors import InputError
from earwitness.types import DEFAULT_FEATURES
from earwitness.util import sha256


def feature_hash(features: Sequence[str]) -> str:
    """SHA-256 of the list, one id a line, in the order given."""
    return sha256("\n".join(features))


def frozen_features(kind: str) -> list[str]:
    """Return the frozen list of a kind of model: ``token``, ``diffusion`` or ``symbolic`` (``ModelInfo.kind``).

    Raises
    ------
    InputError
        No list was frozen for that kind.
    """
    if kind not in DEFAULT_FEATURES:
        raise InputError(
            f"no feature list was frozen for {kind} models ({', '.join(DEFAULT_FEATURES)} have one), so an audit of "
            "one could only be exploratory; see the page on dataset inference"
        )
    return list(DEFAULT_FEATURES[kind])


def default_features(attacks: Sequence[str]) -> list[str]:
    """Return the frozen list of the family whose features a score table holds.

    Raises
    ------
    InputError
        The table has all features of no family.
    """
    held = {family: [name in attacks for name in frozen] for family, frozen in DEFAULT_FEATURES.items()}
    whole = [family for family in held if all(held[family])]
    if "token" in whole and "symbolic" in whole:
        whole.remove("symbolic")  # its attacks run on any tokens; scores under a symbolic model lack the null stream
    part = next((family for family in held if any(held[family])), None)
    if not whole and part is not None:
        missing = [name for name, there in zip(DEFAULT_FEATURES[part], held[part], strict=True) if not there]
        raise InputError(
            f"the score table lacks default features of the {part} family: {', '.join(missing)}; collect them, "
            "or name features= yourself (the result is then marked exploratory)"
        )
    if not whole:
        raise InputError(
            f"the score table holds no default feature of any family ({', '.join(DEFAULT_FEATURES)}); name features= "
            "yourself (the result is then marked exploratory)"
        )
    return [name for family in whole for name in DEFAULT_FEATURES[family]]
