"""What the engine itself costs and whether it scales: two processes against one, memory, interruption, throughput.

Prints one JSON object. Every ratio is of two measurements in this one run:

- ``two_over_one``: seconds of one process over seconds of two that share the same tracks (goal 1.8 on two cores);
- ``memory_ratio``: peak memory with ten times the tracks over peak memory (goal at most 1.05);
- ``decoded_ahead``: seconds without worker over seconds with one;
- ``interrupt``: from SIGINT to the end of the command, in seconds (goal 2).

With ``--throughput FILE`` it writes instead what one core does with random weights in the shape of MusicGen small (30 s
at 32 kHz): the file behind the page *What an audit costs*.

Run: OMP_NUM_THREADS=1 python benchmarks/bench_engine.py [--tracks 320] [--repeats 3] [--throughput FILE]
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

CHILD = """
import json, resource, sys, time
from pathlib import Path
import earwitness as ew
from earwitness.manifest import Track
model = ew.load_model(sys.argv[2])
folder, count, workers = Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4])
tracks = [Track(p.name, p, "suspect", caption="slow music") for p in sorted(folder.glob("*.flac"))[:count]]
print("ready", flush=True)
sys.stdin.readline()
started = time.perf_counter()
ew.collect(model, tracks, workers=workers, progress=False)
print(json.dumps({"seconds": time.perf_counter() - started,
                  "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
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


def run(folder, processes=1, count=10**6, workers=0):
    """Score the folder with so many processes at once; return (seconds of the slowest, peak MiB of the largest)."""
    with tempfile.TemporaryDirectory() as results:
        environment = os.environ | {"EARWITNESS_RESULTS": results}
        command = [sys.executable, "-c", CHILD, str(folder), MODEL, str(count), str(workers)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        children = [subprocess.Popen(command, text=True, env=environment, **pipes) for _ in range(processes)]
        for child in children:
            child.stdout.readline()
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        found = [json.loads(child.communicate()[0]) for child in children]
    return max(f["seconds"] for f in found), max(f["peak_mib"] for f in found)


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

    from earwitness.models.base import ModelInfo
    from earwitness.models.musicgen import MusicgenModel

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
    """Return one row: what a segment takes on one core, in processor seconds."""
    from earwitness.audio import AudioSpec, prepare
    from earwitness.extractors.run import Further, score_part
    from earwitness.manifest import Track
    from earwitness.store import encode

    info = model.info
    spec = AudioSpec(info.sample_rate, info.channels, info.segment_seconds)
    path = folder / "long.flac"
    clock = np.arange(round(3.1 * info.segment_seconds * 44_100)) / 44_100
    stereo = np.stack([np.sin(440 * 6.283 * clock), np.sin(330 * 6.283 * clock)], axis=1)
    sf.write(path, 0.2 * stereo, 44_100)
    started = time.process_time()
    cuts = [("key", Track("a", path, "suspect", caption="slow music"), segment) for segment in prepare(path, spec)]
    prepared = (time.process_time() - started) / len(cuts)
    started = time.process_time()
    scored = score_part(model, cuts[:1], spec, Further((), None, {}))
    elapsed = (time.process_time() - started) / 2  # one segment is scored beforehand, to see what it takes
    return {
        "network": info.name,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "device": "one core",
        "segment_seconds": info.segment_seconds,
        "score_s_per_segment": round(elapsed, 4),
        "prepare_s_per_segment": round(prepared, 4),
        "bytes_per_segment": len(encode(scored, {})),
    }


def main():
    """Run everything and print the JSON, or write the throughput."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--throughput", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.throughput:
            import pandas as pd

            row = throughput(folder, musicgen_small())
            pd.DataFrame([row]).to_csv(given.throughput, index=False)
            print(json.dumps(row, indent=2))
            return
        corpus(folder, given.tracks, 5.3)
        pairs = [(run(folder)[0], run(folder, 2)[0]) for _ in range(given.repeats)]
        few, many = (run(folder, count=given.tracks // n)[1] for n in (10, 1))
        plain, ahead = run(folder, count=given.tracks // 2)[0], run(folder, count=given.tracks // 2, workers=1)[0]
        report = {
            "tracks": given.tracks,
            "one_s": [one for one, _ in pairs],
            "two_s": [two for _, two in pairs],
            "two_over_one": statistics.median(one / two for one, two in pairs),
            "memory_mib": [few, many],
            "memory_ratio": many / few,
            "decoded_ahead": plain / ahead,
            "interrupt": interruption(folder),
            "load": os.getloadavg()[0],
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
