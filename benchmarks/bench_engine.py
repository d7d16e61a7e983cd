"""What the engine itself costs and whether it scales: two processes against one, memory, interruption, throughput.

Prints one JSON object. Every ratio is of two measurements in this one run:

- ``two_over_one``: seconds of one process over seconds of two that share the same tracks (goal 1.8 on two cores).
  ``bare`` is the yardstick beside it: the same for the network alone in a loop, without the engine. What the bare loop
  does not reach is the machine's doing (other work on it, shared caches and memory). ``cpu`` is the processor time of
  two over that of one: what sharing costs, whatever else the machine does;
- ``start_s``: seconds of processor time until a process scores (imports, weights), which every process pays once;
- ``memory_ratio``: peak memory with ten times the tracks over peak memory (goal at most 1.05);
- ``decoded_ahead``: seconds without worker over seconds with one;
- ``own_parts``: seconds to find one part's tracks in a store of 2,000 parts by a scan of all, over seconds with a look
  at their own part first;
- ``interrupt``: from SIGINT to the end of the command, in seconds (goal 2).

With ``--throughput FILE`` it writes instead what one core does with random weights in the shape of MusicGen small (30 s
at 32 kHz) on recordings put together from the pocket corpus: the file behind the page *What an audit costs*.

Run: OMP_NUM_THREADS=1 python benchmarks/bench_engine.py [--tracks 960] [--repeats 3] [--throughput FILE]
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf

HEAD = """
import json, os, resource, sys, time
from pathlib import Path
import earwitness as ew
from earwitness.data.manifest import Track
model = ew.load_model(sys.argv[2])
folder, count, workers = Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4])
tracks = [Track(p.name, p, "suspect", caption="slow music") for p in sorted(folder.glob("*.flac"))[:count]]
ew.collect(model, tracks[:1], seed=1, progress=False)  # whatever is imported late
begun = time.process_time()
print("ready", flush=True)
sys.stdin.readline()
started = time.perf_counter()
"""
TAIL = """
print(json.dumps({"seconds": time.perf_counter() - started, "cpu": time.process_time() - begun, "start_s": begun,
                  "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""
ENGINE = "ew.collect(model, tracks, workers=workers, progress=False)"
BARE = """
import torch
audio = 0.1 * torch.randn(16, 1, round(model.info.segment_seconds * model.info.sample_rate))
with torch.inference_mode():
    for _ in range(2 * count // 16):
        codes = model.encode(audio)
        for captions in (["slow music"] * 16, None):
            model.logits(codes, captions)
"""
RATE = 16_000
MODEL = "pocket/musicgen-b"


def corpus(folder, count, seconds):
    """Write so many short recordings."""
    rng = np.random.default_rng(0)
    clock = np.arange(round(seconds * RATE)) / RATE
    for number in range(count):
        sound = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 900) * clock) + 0.05 * rng.standard_normal(len(clock))
        sf.write(folder / f"{number:05d}.flac", sound, RATE)
    return folder


def run(folder, processes=1, count=10**6, workers=0, work=ENGINE):
    """Do the work in so many processes at once; return the slowest's seconds, all processor time, the largest memory.

    With the engine they share the tracks; a bare loop gets its share as ``count``.
    """
    with tempfile.TemporaryDirectory() as results:
        environment = os.environ | {"EARWITNESS_RESULTS": results}
        command = [sys.executable, "-c", HEAD + work + TAIL, str(folder), MODEL, str(count), str(workers)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        children = [subprocess.Popen(command, text=True, env=environment, **pipes) for _ in range(processes)]
        for child in children:
            child.stdout.readline()
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        found = [json.loads(child.communicate()[0]) for child in children]
    return {
        "seconds": max(f["seconds"] for f in found),
        "cpu": sum(f["cpu"] for f in found),
        "start_s": max(f["start_s"] for f in found),
        "peak_mib": max(f["peak_mib"] for f in found),
    }


def scaling(folder, tracks):
    """Run one process and two, with the engine and bare, in turn; return the ratios."""
    bare = [run(folder, n, tracks // n // 2, work=BARE) for n in (1, 2)]
    engine = [run(folder, n) for n in (1, 2)]
    return {
        "two_over_one": engine[0]["seconds"] / engine[1]["seconds"],
        "bare": bare[0]["seconds"] / bare[1]["seconds"],
        "cpu": engine[1]["cpu"] / engine[0]["cpu"],
        "one_s": engine[0]["seconds"],
        "start_s": engine[0]["start_s"],
        "load": os.getloadavg()[0],
    }


def own_parts(count=2_000, tracks=32):
    """Return how much sooner a part's tracks are found in a large store by looking at their own part first."""
    from earwitness.data.audio import AudioSpec
    from earwitness.signals.store import Store, part_name
    from earwitness.types import ModelInfo

    with tempfile.TemporaryDirectory() as results:
        os.environ["EARWITNESS_RESULTS"] = results
        info = ModelInfo("large", "token", "0", RATE, 1, 1.0, "float32", "cpu", "tiny")
        store, codes = Store(info, AudioSpec(RATE, 1, 1.0)), np.zeros((4, 8), np.int32)
        parts = [[f"{number}-{track}" for track in range(tracks)] for number in range(count)]
        for part in parts:
            store.write([{"track_key": key, "segment_id": key, "start_s": 0.0, "token:codes": codes} for key in part])
        seconds = []
        for number, find in enumerate((lambda keys: store.index(), lambda keys: store.index(keys, [part_name(keys)]))):
            keys = set(parts[number])
            started = time.perf_counter()
            assert keys <= set(find(keys)["track_key"])
            seconds.append(time.perf_counter() - started)
    return seconds[0] / seconds[1]


def interruption(folder):
    """Return seconds from SIGINT to the end of a command that is in the middle of its work."""
    manifest = folder / "m.csv"
    manifest.write_text("path,role\n" + "".join(f"{p.name},suspect\n" for p in sorted(folder.glob("*.flac"))))
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "-m", "earwitness.cli", "score", "--model", MODEL, "--manifest", str(manifest)]
        environment = os.environ | {"EARWITNESS_RESULTS": results}
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(Path(results).rglob("part-*.parquet")):
            time.sleep(0.02)
        started = time.perf_counter()
        child.send_signal(signal.SIGINT)
        code = child.wait()
        return {"seconds": time.perf_counter() - started, "exit_code": code}


def musicgen_small():
    """Return random weights in the shape of MusicGen small behind the adapter."""
    import torch
    from bench_token import Characters
    from transformers import (
        EncodecConfig,
        MusicgenConfig,
        MusicgenDecoderConfig,
        MusicgenForConditionalGeneration,
        T5Config,
    )

    from earwitness.models.musicgen import MusicgenModel
    from earwitness.types import ModelInfo

    text = T5Config(vocab_size=32128, d_model=768, d_ff=3072, num_layers=12, num_heads=12)
    codec = EncodecConfig(
        target_bandwidths=[2.2], sampling_rate=32_000, num_filters=64, hidden_size=128, codebook_size=2048,
        codebook_dim=128, upsampling_ratios=[8, 5, 4, 4], use_causal_conv=False, norm_type="weight_norm",
        normalize=False,
    )  # fmt: skip
    decoder = MusicgenDecoderConfig(vocab_size=2048, num_codebooks=4, pad_token_id=2048, bos_token_id=2048)
    config = MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict())
    torch.manual_seed(0)
    network = MusicgenForConditionalGeneration(config).eval()
    info = ModelInfo("MusicGen small's shape", "token", "0", 32_000, 1, 30.0, "float32", "cpu", "tiny")
    return MusicgenModel(network, Characters(), info)


def throughput(folder, model):
    """Return one row: what a segment takes on one core, in processor seconds, through the engine as a user runs it."""
    import earwitness as ew
    from earwitness.data.audio import AudioSpec, decode, segments
    from earwitness.data.manifest import read_splits
    from earwitness.signals import blind
    from earwitness.types import Track
    from earwitness.util import project_root

    info = model.info
    spec = AudioSpec(info.sample_rate, info.channels, info.segment_seconds)
    pieces = [np.zeros(0, np.float32)]
    for track in read_splits(project_root() / "data_manifests" / "pocket.csv")[:60:2]:
        pieces.append(decode(track.path)[0].mean(axis=0))
    music, tracks = np.concatenate(pieces), []
    for number, kind in enumerate(("flac", "mp3", "ogg")):
        path = folder / f"{number}.{kind}"
        start = round(number * 1.05 * info.segment_seconds * RATE)
        sf.write(path, music[start : start + round(1.05 * info.segment_seconds * RATE)], RATE)
        tracks.append(Track(path.name, path, "suspect", caption="slow music"))
    clock = time.process_time
    for track in tracks[:2]:  # the first to import what is needed
        started = clock()
        cuts = list(segments(track.path, spec))
        blind.of_segment(cuts[0], spec, track.path, track.caption)
        prepared = clock() - started
    ew.collect(model, tracks[:1], seed=1, progress=False)
    started = clock()
    signals = ew.collect(model, tracks, progress=False)
    elapsed = (clock() - started) / len(signals.index)
    # Before compression: random weights repeat themselves more than trained ones, so the files here would flatter.
    size = sum(array.nbytes for _, signal in signals.items("token") for array in signal.to_arrays().values())
    return {
        "network": info.name,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "device": "one core",
        "segment_seconds": info.segment_seconds,
        "score_s_per_segment": round(elapsed - prepared, 4),
        "prepare_s_per_segment": round(prepared, 4),
        "bytes_per_segment": round(size / len(signals.index)),
    }


def main():
    """Run everything and print the JSON, or write the throughput."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=960)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--throughput", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.throughput:
            import pandas as pd

            os.environ["EARWITNESS_RESULTS"] = str(folder / "results")
            row = throughput(folder, musicgen_small())
            pd.DataFrame([row]).to_csv(given.throughput, index=False)
            print(json.dumps(row, indent=2))
            return
        corpus(folder, given.tracks, 5.3)
        rounds = [scaling(folder, given.tracks) for _ in range(given.repeats)]
        report = {"tracks": given.tracks}
        report |= {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        few, many = (run(folder, count=given.tracks // n)["peak_mib"] for n in (10, 1))
        report |= {"memory_mib": [few, many], "memory_ratio": many / few}
        half = given.tracks // 3
        plain, ahead = (run(folder, count=half, workers=workers)["seconds"] for workers in (0, 1))
        report |= {"decoded_ahead": plain / ahead, "interrupt": interruption(folder), "own_parts": own_parts()}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
