"""Let torchaudio's ordinary wheel import beside a CPU torch, by putting its CUDA-linked extension aside.

The wheel is linked against CUDA's libraries, so beside a CPU build of torch ``import torchaudio`` raises OSError, and
with it ``from transformers import MusicgenForConditionalGeneration``, since transformers imports torchaudio whenever it
is installed. Without the extension torchaudio runs in pure Python; only forced alignment and the RNN-T loss need it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

ASIDE = ".aside"


def mend(package: Path, accelerated: bool, load: Callable[[Path], object]) -> list[str]:
    """Put those extension files aside that cannot be loaded, and say what was done.

    Parameters
    ----------
    package : Path
        The installed ``torchaudio`` folder.
    accelerated : bool
        Whether torch is a CUDA or ROCm build: then its extension is right, and nothing is touched but what an earlier
        CPU torch made us put aside, which is put back.
    load : callable
        Loads a shared library and raises OSError if it cannot (``torch.ops.load_library``).

    Returns
    -------
    list of str
        One line per file moved; empty when there was nothing to do.
    """
    done = []
    folder = package / "lib"
    if accelerated:
        for aside in sorted(folder.glob(f"*.so{ASIDE}")):
            aside.rename(aside.with_suffix(""))
            done.append(f"torchaudio: {aside.with_suffix('').name} put back")
        return done
    for extension in sorted(folder.glob("*.so")):
        try:
            load(extension)
        except OSError:
            extension.rename(extension.with_name(extension.name + ASIDE))
            done.append(f"torchaudio: {extension.name} put aside, it needs a CUDA torch")
    return done


def main() -> int:
    """Mend the torchaudio of the running interpreter and check that it imports."""
    import torch

    spec = find_spec("torchaudio")
    if spec is None or spec.origin is None:
        return 0
    accelerated = bool(torch.version.cuda or torch.version.hip)
    for line in mend(Path(spec.origin).parent, accelerated, torch.ops.load_library):
        print(line)
    import torchaudio  # noqa: F401  (the proof that the mend worked)

    return 0


if __name__ == "__main__":
    sys.exit(main())
