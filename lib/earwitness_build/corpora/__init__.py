"""Builders: a corpus's official files become a manifest and its card. One short module and one card per corpus.

To add a corpus, put ``<name>.py`` and ``<name>.card.yml`` into this folder; nothing else names it. The module holds one
function that reads the official files and returns one row per recording, or one per caption::

    @builder("my-corpus", sides=("train", "test"))
    def my_corpus(official: Official) -> pd.DataFrame:
        table = official.table("train.csv", ("id", "caption"), key="id")
        ...

Columns of the frame: ``track_id``, ``split`` and ``audio`` (a tuple of names that the recording may have on disk,
without suffix: a file's name, or the end of its path) are needed; the manifest's other text columns and ``duration_s``
are optional. A track may have several rows that differ in ``caption`` only: one is drawn. Which splits are whose
members, and who says so, stands in the card, never in code. ``build.build`` does the rest, the same way for all. The
book page *Methods: manifests* shows the command.
"""

from earwitness_build.corpora.official import Official
from earwitness_build.corpora.registry import Builder, builder, builders

__all__ = ["Builder", "Official", "builder", "builders"]
