"""Whether copies among a million recordings are found without comparing all with all.

The fingerprints are made up: words of 32 bits of which each changes with probability 1/16 from frame to frame, as in
music. One recording in a hundred gets a copy that begins a second later and in which one bit in thirty is wrong.
Prints one JSON object: ``recordings``, ``seconds``, ``peak_gb`` of the whole process, ``found`` (share of the copies),
``false`` (pairs that are no copies), and ``growth``: seconds over those of a tenth of the recordings (all pairs: 100).

Run: OMP_NUM_THREADS=1 python benchmarks/bench_dedup.py [--recordings 1000000] [--seconds 10]
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from earwitness.data.fingerprint import duplicates
from earwitness.types import Track

RATE = 50  # words a second
SHARE = 100  # one recording in so many has a copy
LATER = 50  # frames by which the copy begins later
CHUNK = 20_000


def flips(rng, shape, quarters):
    """Return masks in which a bit is set with probability 2 to the power of minus ``quarters``."""
    mask = rng.integers(0, 2**32, shape, dtype=np.uint32)
    for _ in range(quarters - 1):
        mask &= rng.integers(0, 2**32, shape, dtype=np.uint32)
    return mask


def prints(count, frames, seed=0):
    """Return the words of so many recordings [count, frames], and of the copies of every hundredth."""
    rng = np.random.default_rng(seed)
    words = np.empty((count, frames), np.uint32)
    for start in range(0, count, CHUNK):
        block = words[start : start + CHUNK]
        block[:] = flips(rng, block.shape, 4)
        block[:, 0] = rng.integers(1, 2**32, len(block), dtype=np.uint32)
        np.bitwise_xor.accumulate(block, axis=1, out=block)
    copies = words[::SHARE, LATER:].copy()
    return words, copies ^ flips(rng, copies.shape, 5)


def measure(count, frames):
    """Return seconds, share of copies found, and pairs that are none."""
    words, copies = prints(count, frames)
    names = [*(f"r{i}" for i in range(count)), *(f"c{i * SHARE}" for i in range(len(copies)))]
    tracks = [Track(name, Path(name), "") for name in names]
    held = dict(zip(names, [*words, *copies], strict=True))
    started = time.perf_counter()
    pairs = duplicates(tracks, held)
    seconds = time.perf_counter() - started
    right = (pairs["track_id"].str[1:] == pairs["other_id"].str[1:]) & (pairs["track_id"] != pairs["other_id"])
    return seconds, float(right.sum() / len(copies)), int((~right).sum())


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    frames = round(arguments.seconds * RATE)
    tenth, _, _ = measure(arguments.recordings // 10, frames)
    seconds, found, false = measure(arguments.recordings, frames)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    result = {"recordings": arguments.recordings, "seconds": seconds, "peak_gb": peak, "found": found, "false": false}
    print(json.dumps({name: round(value, 3) for name, value in (result | {"growth": seconds / tenth}).items()}))


if __name__ == "__main__":
    main()
