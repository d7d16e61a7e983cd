"""What makes a pocket artist: scale, tempo, instruments, harmony, rhythm and drums, drawn by seed.

A *world* is a list of artists drawn together, so that traits are spread evenly over them and artists are heard (and
seen in a spectrogram) as different. Explained on the book page *The pocket world*.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

Rng = np.random.Generator

MODES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
}


@dataclass(frozen=True)
class Timbre:
    """One instrument: a recipe for the renderer. Times in seconds, ``detune`` in cents.

    ``slope`` is the exponent with which harmonics fall (1 = sawtooth-like), ``dull`` the extra fall after ``fade``
    seconds (a closing filter), ``odd`` the level of even harmonics left out, ``fm`` (ratio, index) turns the tone into
    a frequency-modulated one.
    """

    name: str
    program: int
    attack: float = 0.01
    decay: float = 0.5
    sustain: float = 0.5
    release: float = 0.12
    slope: float = 1.5
    dull: float = 1.0
    fade: float = 0.2
    odd: float = 0.0
    vibrato: float = 0.0
    detune: float = 0.0
    fm: tuple[float, float] | None = None
    gain: float = 1.0


LEADS = (
    Timbre("glass bells", 9, 0.002, 0.7, 0.0, 0.3, fm=(3.5, 2.2), gain=0.9),
    Timbre("plucked strings", 46, 0.003, 0.35, 0.1, 0.15, 1.0, 2.0, 0.08),
    Timbre("soft flute", 73, 0.06, 0.3, 0.85, 0.12, 3.0, 0.5, 0.3, vibrato=0.006),
    Timbre("square-wave synth", 80, 0.005, 0.2, 0.7, 0.06, 1.0, 0.8, 0.15, odd=1.0, gain=0.8),
    Timbre("bright saw synth", 81, 0.01, 0.3, 0.7, 0.1, 0.9, 0.8, 0.25, detune=9.0, gain=0.8),
    Timbre("marimba", 12, 0.002, 0.16, 0.0, 0.1, fm=(4.0, 0.8), gain=1.1),
    Timbre("clarinet", 71, 0.03, 0.3, 0.8, 0.08, 1.6, 0.4, 0.3, odd=0.9, vibrato=0.003),
    Timbre("electric piano", 4, 0.003, 0.6, 0.15, 0.15, fm=(1.0, 1.6)),
)
CHORDS = (
    Timbre("warm pads", 89, 0.25, 0.6, 0.8, 0.4, 2.0, 0.5, 0.8, detune=7.0),
    Timbre("string ensemble", 48, 0.12, 0.5, 0.8, 0.25, 1.1, 0.5, 0.6, detune=12.0, vibrato=0.003),
    Timbre("church organ", 19, 0.03, 0.3, 0.95, 0.1, 1.7, 0.0, 0.3),
    Timbre("strummed guitar", 25, 0.003, 0.5, 0.1, 0.2, 1.2, 1.6, 0.1),
    Timbre("glassy keys", 5, 0.004, 0.5, 0.2, 0.15, fm=(2.0, 1.0)),
    Timbre("buzzing synth chords", 90, 0.01, 0.25, 0.6, 0.08, 0.8, 1.2, 0.12, detune=14.0),
)
BASSES = (
    Timbre("round bass", 33, 0.008, 0.4, 0.6, 0.06, 3.0, 1.0, 0.1, gain=1.1),
    Timbre("growling bass", 38, 0.006, 0.3, 0.7, 0.05, 1.0, 1.0, 0.12),
    Timbre("picked bass", 34, 0.003, 0.25, 0.3, 0.05, 1.5, 2.0, 0.05),
)

# Drums: (caption, {General MIDI key: sixteenth-note steps of a bar of 16}); a bar of 12 uses the steps below 12.
DRUMS: tuple[tuple[str, dict[int, tuple[int, ...]]], ...] = (
    ("no drums", {}),
    ("soft drums", {36: (0, 10), 38: (8,), 42: (0, 4, 8, 12)}),
    ("four-on-the-floor drums", {36: (0, 4, 8, 12), 39: (4, 12), 46: (2, 6, 10, 14)}),
    ("breakbeat drums", {36: (0, 2, 10), 38: (4, 12), 42: (0, 2, 4, 6, 8, 10, 12, 14)}),
    ("half-time drums", {36: (0, 7), 38: (8,), 42: (0, 2, 4, 6, 8, 10, 12, 14)}),
    ("a shaker", {70: (0, 2, 4, 6, 8, 10, 12, 14)}),
    ("hand drums", {36: (0, 6, 11), 47: (3, 8, 14)}),
    ("marching snare drums", {38: (0, 3, 4, 8, 11, 12, 14), 36: (0, 8)}),
)
CHORD_PATTERNS = ("held", "offbeat", "arpeggio", "quarters", "syncopated")
BASS_PATTERNS = ("long", "eighths", "octaves", "syncopated", "walking")
PROGRESSIONS: tuple[tuple[int, ...], ...] = (
    (0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 3), (0, 6, 5, 6), (0, 2, 3, 4), (5, 3, 0, 4),
    (0, 3, 0, 4), (0, 5, 1, 4), (3, 4, 2, 5), (0, 1, 0, 6), (0, 2, 5, 4), (0, 6, 3, 0),
)  # fmt: skip
NAMES = (
    "Ovelune", "Tavenko", "Quillaby", "Maristrel", "Sundrevane", "Petrichoir", "Hollowfen", "Brindlewick",
    "Calmarine", "Vantorelle", "Ishkadee", "Norrowmere", "Luminarrow", "Fennimoor", "Zephyrelle", "Odalinka",
    "Rustigram", "Kestravane", "Mirabello Sunk", "Thistledrone", "Aurelimba", "Pomegranova", "Wickerlight", "Dovelune",
    "Selvarosa", "Grindlebee", "Harkenfold", "Juniperax", "Elderquay", "Nimbolina", "Yarrowsong", "Cobaltine",
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """Everything tracks of one artist have in common.

    ``tempo`` is a range in beats per minute, ``keys`` are tonics (pitch classes), ``cells`` the artist's melody rhythms
    as sixteenth-note steps within a bar (all of the same length, so that tracks are equally dense), ``swing`` in ticks.
    """

    index: int
    name: str
    mode: str
    keys: tuple[int, ...]
    tempo: tuple[int, int]
    steps: int
    swing: int
    lead: Timbre
    chords: Timbre
    bass: Timbre
    octave: int
    leap: float
    cells: tuple[tuple[int, ...], ...]
    progressions: tuple[tuple[int, ...], ...]
    chord_pattern: str
    bass_pattern: str
    drums: str
    beat: dict[int, tuple[int, ...]]
    levels: tuple[float, float, float, float]
    reverb: tuple[float, float]
    kit_seed: int

    @property
    def slug(self) -> str:
        """The name as a folder name: lower case, hyphens."""
        return self.name.lower().replace(" ", "-")

    @property
    def instruments(self) -> dict[int, Timbre]:
        """Pitched instruments by General MIDI program."""
        return {timbre.program: timbre for timbre in (self.lead, self.chords, self.bass)}


def draw_world(seed: int, names: tuple[str, ...] = NAMES) -> list[Style]:
    """Draw the artists of one world, one per name.

    Parameters
    ----------
    seed : int
        Seed of the world; every artist gets a child seed of its own.
    names : tuple of str
        Artist names, all different.

    Returns
    -------
    list of Style
        In the order of ``names``. Traits are dealt like cards (each used before any is used again), so that no two
        artists of a small world share most of them.
    """
    rng = np.random.default_rng([seed, 0])
    count = len(names)

    def deal(options: int) -> np.ndarray:
        rounds = [rng.permutation(options) for _ in range(-(-count // options))]
        return np.concatenate(rounds)[:count]

    hands = [deal(len(o)) for o in (MODES, LEADS, CHORDS, BASSES, DRUMS, CHORD_PATTERNS, BASS_PATTERNS)]
    tempi = 66 + (100 * (deal(count) + 0.5) / count).astype(int)
    return [
        _draw_style(np.random.default_rng([seed, 1, i]), i, names[i], int(tempi[i]), *(int(h[i]) for h in hands))
        for i in range(count)
    ]


def _draw_style(
    rng: Rng,
    index: int,
    name: str,
    tempo: int,
    mode: int,
    lead: int,
    chords: int,
    bass: int,
    drums: int,
    comp: int,
    walk: int,
) -> Style:
    steps = 12 if rng.random() < 0.2 else 16
    density = int(rng.integers(3, 8))
    cells = tuple(tuple(sorted(int(s) for s in _cell(rng, steps, density))) for _ in range(4))
    order = rng.permutation(len(PROGRESSIONS))[:4]
    return Style(
        index=index,
        name=name,
        mode=list(MODES)[mode],
        keys=tuple(int(k) for k in rng.permutation(12)[:3]),
        tempo=(tempo - tempo // 30, tempo + tempo // 30),
        steps=steps,
        swing=int(rng.choice([0, 0, 0, 2])),
        lead=_vary(rng, LEADS[lead]),
        chords=_vary(rng, CHORDS[chords]),
        bass=_vary(rng, BASSES[bass]),
        octave=int(rng.choice([60, 67, 72, 76])),
        leap=float(rng.choice([0.05, 0.2, 0.4])),
        cells=cells,
        progressions=tuple(PROGRESSIONS[int(i)] for i in order),
        chord_pattern=CHORD_PATTERNS[comp],
        bass_pattern=BASS_PATTERNS[walk],
        drums=DRUMS[drums][0],
        beat={key: tuple(s for s in where if s < steps) for key, where in DRUMS[drums][1].items()},
        levels=tuple(float(v) for v in np.round(rng.uniform([0.8, 0.22, 0.5, 0.4], [1.0, 0.4, 0.8, 0.8]), 3)),  # type: ignore[arg-type]
        reverb=(float(np.round(rng.uniform(0.15, 0.6), 3)), float(np.round(rng.uniform(0.05, 0.25), 3))),
        kit_seed=int(rng.integers(2**31)),
    )


def _cell(rng: Rng, steps: int, density: int) -> np.ndarray:
    """A bar's melody rhythm: ``density`` different sixteenth steps; strong ones are likelier."""
    weight = np.where(np.arange(steps) % 4 == 0, 4.0, np.where(np.arange(steps) % 2 == 0, 2.0, 0.5))
    return rng.choice(steps, size=density, replace=False, p=weight / weight.sum())


def _vary(rng: Rng, timbre: Timbre) -> Timbre:
    """The same instrument in another make: times, brightness and modulation moved by up to a third."""
    f = np.round(rng.uniform(0.75, 1.33, size=5), 3)
    fm = None if timbre.fm is None else (timbre.fm[0], float(timbre.fm[1] * f[4]))
    return replace(
        timbre,
        attack=float(timbre.attack * f[0]),
        decay=float(timbre.decay * f[1]),
        slope=float(timbre.slope * f[2]),
        fade=float(timbre.fade * f[3]),
        fm=fm,
    )


_TEMPO_WORDS = (("slow", "unhurried"), ("mid-tempo", "walking-pace"), ("fast", "lively"))
_MODE_WORDS = {"major": "major-key", "minor": "minor-key", "harmonic minor": "dark minor-key"}
_TEMPLATES = (
    "{tempo} {mode} {lead} over {chords} with {bass} and {drums}",
    "{tempo} {mode} music with {lead}, {chords}, {bass} and {drums}",
    "{lead} and {chords} in a {tempo} {mode} mood, {bass}, {drums}",
)


def caption(style: Style, rng: Rng) -> str:
    """Describe an artist's style in words; the wording varies a little with ``rng``, the content does not."""
    pace = _TEMPO_WORDS[int(np.digitize(style.tempo[0], (95, 132)))]
    return _TEMPLATES[int(rng.integers(len(_TEMPLATES)))].format(
        tempo=pace[int(rng.integers(2))],
        mode=_MODE_WORDS.get(style.mode, style.mode),
        lead=style.lead.name,
        chords=style.chords.name,
        bass=style.bass.name,
        drums=style.drums,
    )
