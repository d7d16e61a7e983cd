"""From files to tracks and segments: manifests, folders, sound under limits, copies.

May import ``pocket`` (the embedded corpus is rendered when it is first read), ``symbolic`` (a folder may hold MIDI
files), and ``errors``, ``util`` and ``types``.

In order: ``csv_table`` (a CSV, with the line to blame), ``manifest`` (rows to ``Track``, roles relative to a model),
``folders`` (two folders instead of a manifest), ``side_table`` (captions or works beside them), ``containers`` (what a
file is, who decodes it, whether it is whole), ``audio`` (sound to level and segments), ``decode_pool`` (the processes
that decode, which may fall), ``tags`` (what a file says of itself), ``fingerprint`` (recordings that share sound),
``copies`` (which of them stays), ``works`` (versions of one piece), ``redaction`` (numbers and HMACs instead of names).
``known_names`` are the words and suffixes by which folders and works are known.

Names that matter: ``read_manifest`` and ``read_folders`` (on the public face), ``read_splits``, ``draw`` (tracks by
lot), ``gather``.
"""

from __future__ import annotations

from earwitness.util import lazily

__getattr__, __dir__ = lazily(
    __name__,
    {
        "draw": "manifest",
        "gather": "folders",
        "named": "manifest",
        "read_folders": "folders",
        "read_manifest": "manifest",
        "read_splits": "manifest",
    },
)
