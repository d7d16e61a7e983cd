"""How well copies of scores are found, on the 1,520 pieces of the pocket corpus.

Prints one JSON object: ``pieces``, ``pairs`` (all that could be merged), ``false_merges`` among them, ``compared`` (the
share of pairs that were compared word by word: an all-pairs loop compares all), and for each change the share of
planted copies found and the number of pairs found that are none.

Run: OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/bench_scores.py [--planted 152]
"""

import argparse
import json
from pathlib import Path

from tests.score_changes import CHANGES, fingerprint, thinned

from earwitness.data.fingerprint import candidates, duplicates
from earwitness.pocket.corpus import plan
from earwitness.pocket.midi import midi_bytes
from earwitness.types import Track


def pairs(prints):
    """Return the pairs that are found."""
    found = duplicates([Track(name, Path(name), "suspect") for name in prints], prints, scores=True)
    return set(zip(found["track_id"], found["other_id"], strict=True))


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planted", type=int, default=152)
    arguments = parser.parse_args()
    files = {e.track_id: midi_bytes(e.piece(), e.artist) for e in plan()}
    prints = {name: fingerprint(data) for name, data in files.items()}
    planted = list(files)[:: max(1, len(files) // arguments.planted)]
    total = len(files) * (len(files) - 1) // 2
    found = {"pieces": len(files), "pairs": total, "false_merges": len(pairs(prints))}
    found["compared"] = round(len(candidates(list(prints.values()))) / total, 6)
    for name, change in (CHANGES | {"thinned": thinned}).items():
        copies = {f"{n}-copy": fingerprint(files[n], change, seed) for seed, n in enumerate(planted)}
        wanted, got = {(n, f"{n}-copy") for n in planted}, pairs(prints | copies)
        found[name] = {"found": round(len(got & wanted) / len(wanted), 3), "false": len(got - wanted)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
