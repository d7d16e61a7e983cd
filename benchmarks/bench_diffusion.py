"""What the planner saves, and what it costs beside the network calls themselves.

Prints one JSON object per network (a pocket twin, and a wide one of random weights): network calls per segment of the
whole CDI feature set with CLiD and SimA, planned and if every attack ran its own extractor; processor seconds of the
planned evaluations against as many bare calls of the same batch size (median ratio over interleaved repeats; goal
1.10); milliseconds of one evaluation; and seconds a segment of each adaptive chain.

Run: OMP_NUM_THREADS=1 python benchmarks/bench_diffusion.py [--repeats 7] [--threads 1] [--items 16] [--networks wide]
"""

import argparse
import json
import platform
import statistics
import time
import warnings

import torch
from diffusers import UNet2DConditionModel

from earwitness import attacks
from earwitness.models import load_model
from earwitness.models.latent_diffusion import read_schedule
from earwitness.signals.denoising import Run
from earwitness.signals.diffusion import common_noise
from earwitness.signals.evaluations import CLEAN, PASSES, PROBES, plan_evaluations, split

TWIN = "pocket/audioldm-a"
NETWORKS = {  # block widths, latent channels, frames, bands
    TWIN: ((48, 72), 16, 16, 4),
    "wide": ((64, 96, 128), 8, 64, 16),
}
ATTACKS = [
    f"{name}/conditional"
    for name in (
        *("denoising_loss", "multiple_loss-*", "secmi", "pia-5", "pian-5", "sima-100-4"),
        *("gradient_mask-*", "noise_optimisation", "noise_move"),
    )
] + ["clid/null", "clid/half", "clid/other"]
BETAS = {"_class_name": "DDIMScheduler", "beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}


def build(widths, channels, frames):
    """Return a random UNet as AudioLDM's folders hold one."""
    return UNet2DConditionModel(
        sample_size=frames, in_channels=channels, out_channels=channels, block_out_channels=widths, layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=widths, attention_head_dim=8, norm_num_groups=8, class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=32, class_embeddings_concat=True,
    ).eval().requires_grad_(False)  # fmt: skip


def timed(function):
    """Return the processor seconds of one call (wall seconds would measure the neighbours)."""
    start = time.process_time()
    function()
    return time.process_time() - start


def separate_calls(specs):
    """Return network calls per segment if every attack, variants together, ran an extractor of its own."""
    names = {}
    for s in specs:
        names.setdefault((s.attack.name, s.stream), set()).update(s.passes)
    return sum(PASSES[p] for passes in names.values() for p in passes)


def measure(name, items, repeats):
    """Compare planned evaluations with bare calls, then time the chains."""
    widths, channels, frames, bands = NETWORKS[name]
    network = load_model(TWIN).network if name == TWIN else build(widths, channels, frames)
    schedule = read_schedule(BETAS, name)
    z, told = torch.randn(items, channels, frames, bands), torch.randn(items, 32)

    def predict(z_t, t, rows):
        return schedule.noise(network(z_t, t, None, class_labels=told[rows], return_dict=False)[0], z_t, t)

    def noise(t, repeat):
        return common_noise(0, t, repeat, tuple(z.shape[1:]))

    specs = attacks.resolve(ATTACKS)
    whole = plan_evaluations({p for s in specs for p in s.passes})
    run = Run(dict.fromkeys(whole.conditions, predict), schedule.alphas_cumprod, {CLEAN: z}, noise)
    rows = max(1, run.rows // items) * items
    big, t, labels = torch.randn(rows, channels, frames, bands), torch.randint(0, 1000, (rows,)), torch.randn(rows, 32)
    calls = -(-len(whole.evaluations) * items // rows)

    def planned():
        with torch.no_grad():
            for condition in whole.conditions:
                run.evaluate([e for e in whole.evaluations if e.condition == condition])

    def bare():
        with torch.no_grad():
            for _ in range(calls):
                network(big, t, None, class_labels=labels, return_dict=False)

    timed(planned), timed(bare)
    ours, theirs = zip(*((timed(planned), timed(bare)) for _ in range(repeats)), strict=True)
    ratio = [a / b * (calls * rows) / (len(whole.evaluations) * items) for a, b in zip(ours, theirs, strict=True)]
    chains = {}
    with torch.no_grad():
        for passed in whole.passes:
            probe, condition = split(passed)
            if PROBES[probe].forward:
                chains[probe] = timed(lambda p=probe, c=condition: run.finish(p, c)) / items
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "distinct_evaluations": len(whole.evaluations),
        "calls_planned": whole.nfe,
        "calls_separate_attacks": separate_calls(specs),
        "ms_per_evaluation": min(theirs) / (calls * rows) * 1e3,
        "planned_s": min(ours),
        "ratio_to_bare": statistics.median(ratio),
        "chain_s_per_segment": {k: round(v, 4) for k, v in chains.items()},
    }


def main():
    """Run everything and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    found = {name: measure(name, given.items, given.repeats) for name in given.networks}
    print(json.dumps({"machine": platform.machine(), "torch": torch.__version__, **vars(given), **found}, indent=1))


if __name__ == "__main__":
    main()
