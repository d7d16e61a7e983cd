"""How much extraction costs beside what is needed: encoding, and the distinct passes of the network, bare.

Prints one JSON object, or writes the file behind the page *What an audit costs*. Per network: processor seconds of one
batch of segments through its family's extractor, over those of encoding and the bare passes of the same batch (the
least of interleaved repeats, in one run; goal 1.05, the smallest toy 1.10). Needed are the null pass and, where there
are captions, the conditional one; for a diffusion model the distinct evaluations of an audit, in calls as large as the
extractor's; for a model of notes its one pass. Random weights in the shape of MusicGen small take the time of trained
ones.

Run: OMP_NUM_THREADS=1 python benchmarks/bench_extraction.py [--repeats 9] [--write benchmarks/extraction.csv]
"""

import argparse
import csv
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from bench_token import build
from transformers import EncodecConfig, EncodecModel

from earwitness.data.audio import spec_of
from earwitness.data.decode_pool import segments
from earwitness.data.manifest import read_splits
from earwitness.models import load_model
from earwitness.signals import diffusion, symbolic, token
from earwitness.signals.denoising import BATCH_ROWS
from earwitness.signals.evaluations import passes_asked, plan_evaluations, without_caption
from earwitness.util import project_root

SMALL, TOY = (1024, 24, 2048), (32, 2, 64)  # hidden size, layers, entries
FILTERS = {2048: 64, 64: 4}  # of the codec, by its entries


def timed(function):
    """Return the processor seconds of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def compared(bare, full, repeats):
    """Return the least of both and their ratio, after one call of each to warm up; of one pair only the bare one is."""
    timed(bare), repeats > 1 and timed(full)
    pairs = [(timed(bare), timed(full)) for _ in range(repeats)]
    needed, extraction = (min(column) for column in zip(*pairs, strict=True))
    return {"needed_s": needed, "extraction_s": extraction, "ratio": extraction / needed}


def musicgen(hidden, layers, entries):
    """Return a random MusicGen with a codec of 50 frames a second and four codebooks, as the published ones have."""
    model, bits = build(hidden, layers, entries), int(entries - 1).bit_length()
    codec = EncodecConfig(
        target_bandwidths=[4 * 50 * bits / 1000], sampling_rate=32_000, audio_channels=1, normalize=False,
        num_filters=FILTERS[entries], hidden_size=2 * FILTERS[entries], codebook_size=entries,
        codebook_dim=2 * FILTERS[entries], upsampling_ratios=[8, 5, 4, 4], norm_type="weight_norm",
        use_causal_conv=False,
    )  # fmt: skip
    model.network.audio_encoder = EncodecModel(codec).eval()
    return model


def sound(model, count, seconds):
    """Return a batch of noise."""
    samples = round(seconds * model.info.sample_rate)
    drawn = np.random.default_rng(0).standard_normal((count, model.info.channels, samples), np.float32)
    return torch.from_numpy(0.1 * drawn)


def tokens(model, audio, captions, repeats):
    """Compare for a token model."""

    def bare():
        with torch.inference_mode():
            codes = model.encode(audio)
            for said in (captions, None) if any(captions) else (None,):
                model.logits(codes, said)

    return compared(bare, lambda: token.extract(model, audio, captions), repeats)


def noise(model, audio, captions, repeats):
    """Compare for a diffusion model, with the passes of an audit."""
    passes = passes_asked("audit", model.info)
    calls = plan_evaluations(passes if any(captions) else without_caption(passes)).nfe
    together = max(1, BATCH_ROWS["cpu"] // len(audio))

    def bare():
        with torch.no_grad():
            latents = model.encode(audio)
            told = model.condition("text", captions, audio)
            for first in range(0, calls, together):
                n = min(together, calls - first)
                t = torch.full((n * len(audio),), 100)
                rows = torch.arange(len(audio)).repeat(n)
                model.predict_noise(latents[rows], t, {name: value[rows] for name, value in told.items()})

    return compared(bare, lambda: diffusion.extract(model, audio, captions, passes), repeats)


def notes(model, count, repeats):
    """Compare for a model of notes, on windows of the pocket corpus."""
    spec, windows = spec_of(model.info), []
    for track in read_splits(project_root() / "data_manifests" / "pocket-midi.csv"):
        windows += segments(track.path, spec)
        if len(windows) >= count:
            break
    held = torch.from_numpy(np.stack([window.audio for window in windows[:count]]))
    read = [window.context for window in windows[:count]]

    def bare():
        with torch.inference_mode():
            model.logits(model.encode(held), read)

    return compared(bare, lambda: symbolic.extract(model, held, read), repeats)


def rows(repeats):
    """Yield a row per network."""
    words = [f"slow music number {n}" for n in range(16)]
    pocket = load_model("pocket/musicgen-a")
    audio = sound(pocket, 16, pocket.info.segment_seconds)
    yield "pocket/musicgen-a", 16, "yes", tokens(pocket, audio, words, repeats)
    yield "pocket/musicgen-a", 16, "no", tokens(pocket, audio, [""] * 16, repeats)
    for name, shape, count, seconds in (("toy", TOY, 8, 4.0), ("MusicGen small's shape", SMALL, 1, 5.0)):
        random = musicgen(*shape)
        audio, few = sound(random, count, seconds), repeats if count > 1 else max(1, repeats // 3)
        yield name, count, "yes", tokens(random, audio, words[:count], few)
        yield name, count, "no", tokens(random, audio, [""] * count, few)
    ldm = load_model("pocket/audioldm-a")
    audio = sound(ldm, 8, ldm.info.segment_seconds)
    yield "pocket/audioldm-a", 8, "yes", noise(ldm, audio, words[:8], repeats)
    yield "pocket/audioldm-a", 8, "no", noise(ldm, audio, [""] * 8, repeats)
    yield "pocket/figaro-a", 16, "none read", notes(load_model("pocket/figaro-a"), 16, repeats)


def main():
    """Run everything; print or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = []
    for name, count, captions, measured in rows(given.repeats):
        found.append({"network": name, "segments": count, "captions": captions, **measured})
        print(found[-1], file=sys.stderr)
    if given.write is None:
        print(json.dumps(found, indent=2))
        return
    with given.write.open("w", newline="") as file:
        table = csv.DictWriter(file, found[0], lineterminator="\n")
        table.writeheader()
        table.writerows([{k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in found])


if __name__ == "__main__":
    main()
