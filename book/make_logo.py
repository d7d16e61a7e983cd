"""Draw the logo: an ear whose inner fold is a sound. ``python book/make_logo.py`` writes logo.svg and favicon.svg."""

from __future__ import annotations

import math
from pathlib import Path

TEAL, ORANGE = "#0d8a86", "#e07b1f"  # both readable on white and on near-black
EAR = (
    "M20 42 C13.5 37 11 31 11 25 C11 12.5 20.5 4.5 32 4.5 C44 4.5 53 13 53 24.5 "
    "C53 39 41 39.5 40.5 49 C40 59 28 62.5 22.5 54"
)


def bars(count: int = 5, middle: float = 25.5, tallest: float = 23.0) -> str:
    """Return the sound: bars under a bell, every other one shorter."""
    drawn = []
    for i in range(count):
        x = 32 + (i - (count - 1) / 2) * 5.6
        height = tallest * math.exp(-(((x - 32) / 11) ** 2)) * (1.0 if i % 2 == 0 else 0.62)
        drawn.append(f"M{x:.1f} {middle - height / 2:.1f} V{middle + height / 2:.1f}")
    return " ".join(drawn)


def logo() -> str:
    """Return the logo as SVG."""
    stroke = 'fill="none" stroke-linecap="round" stroke-linejoin="round"'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
        f'<title>Earwitness</title><path d="{EAR}" {stroke} stroke="{TEAL}" stroke-width="5"/>'
        f'<path d="{bars()}" {stroke} stroke="{ORANGE}" stroke-width="3.6"/></svg>\n'
    )


if __name__ == "__main__":
    for name in ("logo.svg", "favicon.svg"):
        (Path(__file__).parent / "_static" / name).write_text(logo())
