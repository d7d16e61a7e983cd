"""How many segments are scored at once: chosen from free memory, halved when memory runs out all the same.

Nobody can say beforehand what a segment takes under any model and pass, so one segment is scored alone first, its
result thrown away, and its peak counted. A size is a power of two and at most ``MOST``: two machines with room to spare
choose the same one, and equal sizes give equal bits. After a halving the rest of the run stays at the smaller size. The
book page *Methods: from audio to verdict* says where the size is recorded.
"""

from __future__ import annotations

import gc
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from earwitness.errors import ModelError

MOST = {"cpu": 16, "cuda": 64}  # beyond it a batch is no faster, and an interruption costs more
SHARE = 0.5  # of the free memory; the rest is for what the probe could not see, and for other programs
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))  # a container's own
REFUSALS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")

Item = TypeVar("Item")
Result = TypeVar("Result")
Sizes = WeakKeyDictionary[Any, dict[tuple[str, ...], int]]

log = logging.getLogger(__name__)
_chosen: Sizes = WeakKeyDictionary()  # model -> passes -> size


def ran_out(error: BaseException) -> bool:
    """Say whether an error means that memory ran out: torch's own, Python's, or what allocators word as they like."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in REFUSALS)


def free_bytes(device: str) -> int:
    """Return what can still be allocated on a device; on the CPU a container's limit counts too."""
    import psutil
    import torch

    if torch.device(device).type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch holds it for itself
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    free: int = psutil.virtual_memory().available
    try:
        limit, used = (path.read_text().strip() for path in LIMITS)
    except OSError:
        return free
    return min(free, int(limit) - int(used)) if limit.isdigit() else free


def peak_bytes(device: str, run: Callable[[], object]) -> int:
    """Return by how much the memory in use grew at its highest while ``run`` ran."""
    import psutil
    import torch

    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return max(0, torch.cuda.max_memory_allocated(device) - before)
    process, done = psutil.Process(), threading.Event()
    before = highest = process.memory_info().rss

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.002):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return max(highest, process.memory_info().rss) - before


def choose(device: str, probe: Callable[[], object]) -> int:
    """Return the size of the first batch; ``probe`` scores one segment."""
    import torch

    most = MOST.get(torch.device(device).type, MOST["cpu"])
    try:
        need = peak_bytes(device, probe)
    except Exception as error:
        if not ran_out(error):
            raise
        return 1  # the first batch will say what is the matter
    room = SHARE * free_bytes(device) / max(need, 1)
    return min(most, 2 ** max(0, math.floor(math.log2(max(room, 1)))))


def in_batches(
    model: Any, passes: Sequence[str], items: Sequence[Item], score: Callable[[Sequence[Item]], Sequence[Result]]
) -> Iterator[tuple[Item, Result, int]]:
    """Score items batch by batch and yield each with its result and the size of the batches it was scored in.

    Parameters
    ----------
    model : TokenModel or DenoisingModel
        Its ``info`` names the device; sizes are remembered per model and passes, for as long as the model lives.
    passes : sequence of str
        What ``score`` runs beyond the standard passes: other passes need other sizes.
    items : sequence
        In the order of the batches.
    score : callable
        Takes a batch of items, returns one result each.

    Raises
    ------
    ModelError
        Memory that does not suffice for one item.
    """
    sizes, key = _chosen.setdefault(model, {}), tuple(passes)
    if key not in sizes and items:
        sizes[key] = choose(model.info.device, lambda: score(items[:1]))
        log.info("%s: %d segments a batch", model.info.name, sizes[key])
    start = 0
    while start < len(items):
        batch = items[start : start + sizes[key]]
        found = None
        try:
            found = score(batch)
        except Exception as error:
            if not ran_out(error):
                raise
        if found is None:  # out of the handler, so that nothing of the failed batch is held any more
            sizes[key] = _halved(model, len(batch))
            continue
        yield from ((item, result, sizes[key]) for item, result in zip(batch, found, strict=True))
        start += len(batch)


def _halved(model: Any, tried: int) -> int:
    """Give back what can be given back, and return the next size below the one tried: a power of two."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if tried == 1:
        raise ModelError(
            f"{model.info.name}: one segment of {model.info.segment_seconds:g} s does not fit into the memory of "
            f"{model.info.device} ({free_bytes(model.info.device) / 1e9:.1f} GB free); finished parts are stored: free "
            "some memory, load the model with dtype='bfloat16', or take a larger machine, and run the same again"
        )
    smaller = 2 ** math.floor(math.log2(tried - 1))
    log.warning("%s: out of memory at %d segments a batch; going on with %d", model.info.name, tried, smaller)
    return smaller
