"""Which extractors run over a batch of segments: the model's family's, the costly attacks' passes, the blind one.

``signals.collect`` decides what is missing and stores what comes back; this module turns segments into rows.
The book page *Methods: from audio to verdict* draws the flow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from earwitness.attacks import AttackSpec, cost, resolve
from earwitness.audio import AudioSpec, Segment, prepare
from earwitness.errors import InputError
from earwitness.extractors import blind, diffusion, passes, plan, token
from earwitness.extractors.batch import in_batches
from earwitness.extractors.diffusion import DenoisingSignals
from earwitness.extractors.token import TokenSignals
from earwitness.manifest import Track, file_hash
from earwitness.models import describe
from earwitness.models.base import DenoisingModel, ModelInfo, TokenModel
from earwitness.windows import Spec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def specs_asked(attacks: str | Sequence[str], info: ModelInfo) -> list[AttackSpec]:
    """Return the attacks that a name, a pattern or a list of them means for this model.

    For a diffusion model ``"all"`` means those that the cheap passes suffice for, a pattern all but the tail.
    ``"audit"`` means all that an audit scores (``inference.features.audit_attacks``).
    """
    if attacks == "audit":
        from earwitness.inference.features import audit_attacks

        attacks = audit_attacks(info.kind)
    if info.scheme is not None:
        return resolve(attacks, codebooks=len(info.scheme.groups), passes={"blind_notes", "conditional"})
    if info.family == "token":
        return resolve(attacks)
    specs = []
    for wanted in [attacks] if isinstance(attacks, str) else attacks:
        pattern = any(c in wanted for c in "*?[")
        offered = plan.standard if wanted == "all" else partial(plan.possible, tail=not pattern)
        specs += resolve(wanted, passes={"blind", *offered(info.conditions)})
    return specs


def passes_asked(attacks: str | Sequence[str], info: ModelInfo) -> tuple[str, ...]:
    """Return the passes to run: for a token model those beyond the two standard ones, for diffusion all of them."""
    needed = cost(specs_asked(attacks, info))
    if info.family == "token":
        asked = tuple(name for name in needed if name in passes.EXTRA_PASSES)
        passes.check(asked, info)
        return asked
    asked, can = tuple(name for name in needed if name in plan.PASSES), plan.possible(info.conditions)
    for name in asked:
        if name not in can:
            raise InputError(f"{info.name} cannot run {name!r}: it can be conditioned on {', '.join(info.conditions)}")
    if not asked:
        raise InputError(f"{info.name} is a diffusion model and none of the attacks asked for is one on diffusion")
    return asked


@dataclass(frozen=True)
class Further:
    """What costly attacks need beyond the standard passes: which passes, a second model, recordings as prefixes.

    Diffusion models have no standard passes: whatever is run stands here.
    """

    passes: tuple[str, ...]
    reference: Any  # TokenModel, or its name until something is scored, or None
    prefixes: Mapping[str, Path]

    @cached_property
    def reference_info(self) -> ModelInfo | None:
        """What is known of the second model without loading it, when it is first asked: signals are keyed by that."""
        info: ModelInfo | None = (
            describe(self.reference) if isinstance(self.reference, str) else getattr(self.reference, "info", None)
        )
        return info

    def key(self) -> dict[str, Any]:
        """Return what stored signals are keyed by; empty where nothing further is asked for."""
        if not self.passes:
            return {}
        reference = info.key() if (info := self.reference_info) else None
        prefixes = {kind: file_hash(path) for kind, path in self.prefixes.items()}
        version = {"version": passes.VERSION} if passes.EXTRA_PASSES.keys() & set(self.passes) else {}
        return {"passes": sorted(self.passes), "reference": reference, "prefixes": prefixes, **version}

    def codes(self, model: Any, spec: Spec) -> dict[str, Tensor]:
        """Return each prefix as codes ``[K, T]``: the first segment of its recording."""
        import torch

        assert isinstance(spec, AudioSpec), "passes.check lets no symbolic model have a prefix"
        cuts = {kind: prepare(path, spec)[0] for kind, path in self.prefixes.items()}
        return {kind: model.encode(torch.from_numpy(cut.audio)[None])[0] for kind, cut in cuts.items()}


def _extract(
    model: Any, audio: Tensor, captions: list[Any], further: Further, prefixes: Mapping[str, Tensor], seed: int
) -> Sequence[TokenSignals | DenoisingSignals]:
    """Run the extractor of the model's family over a batch of segments."""
    if model.info.family == "diffusion":
        return diffusion.extract(model, audio, captions, further.passes, seed=seed)
    scored = token.extract(model, audio, captions)
    if not further.passes:
        return scored
    return passes.extend(model, audio, captions, scored, further.passes, reference=further.reference, prefixes=prefixes)


def score_part(
    model: TokenModel | DenoisingModel, cuts: Sequence[tuple[str, Track, Segment]], spec: Spec, further: Further
) -> list[dict[str, Any]]:
    """Run the extractors over the segments of one part, batch by batch; return the part's rows.

    Each row says in ``batch_segments`` how many segments its batches held: equal sizes give equal bits.

    Raises
    ------
    ModelError
        As the extractors; also memory that does not suffice for a single segment.
    """
    import torch

    prefixes = further.codes(cast(TokenModel, model), spec) if further.prefixes else {}

    def score(batch: Sequence[tuple[str, Track, Segment]]) -> Sequence[TokenSignals | DenoisingSignals]:
        audio = torch.from_numpy(np.stack([segment.audio for *_, segment in batch]))
        captions = [track.caption if segment.context is None else segment.context for _, track, segment in batch]
        return _extract(model, audio, captions, further, prefixes, spec.seed)

    rows = []
    for (key, track, segment), signal, size in in_batches(model, further.passes, cuts, score):
        row: dict[str, Any] = {"track_key": key, "segment_id": segment.segment_id, "start_s": segment.start_s}
        unseen = segment.blind or blind.of_segment(segment, spec, track.path, track.caption)
        for family, held in ((model.info.family, signal), ("blind", unseen)):
            row |= {f"{family}:{name}": value for name, value in held.to_arrays().items()}
        rows.append(row | {"batch_segments": size})
    return rows
