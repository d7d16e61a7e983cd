"""The only code that runs a network: what every attack needs to know of a segment, computed once and stored.

May import ``models``, ``data``, ``symbolic``, ``pocket`` (whose instruments play a score), and ``errors``, ``util`` and
``types``; never ``attacks``: the table of what each attack needs, ``evaluations.ATTACKS``, stands here.

In order: ``evaluations`` (attack -> passes -> network calls), ``token`` and ``token_costly`` (token models),
``diffusion``, ``diffusion_costly``, ``chains`` and ``perturbations`` (diffusion models), ``symbolic`` and ``blind`` (no
model at all), ``store`` (Parquet parts under a key), ``stream`` and ``extraction`` (tracks to stored signals);
``excerpts`` and ``playback`` let single recordings be heard; ``generation`` continues them.

Names that matter: ``collect`` (on the public face), ``Signals``, ``TokenSignals``, ``DenoisingSignals``,
``BlindSignals``.
"""

from __future__ import annotations

from earwitness.util import lazily

__getattr__, __dir__ = lazily(
    __name__,
    {
        "BlindSignals": "blind",
        "DenoisingSignals": "diffusion",
        "Signals": "extraction",
        "TokenSignals": "token",
        "collect": "extraction",
    },
)
