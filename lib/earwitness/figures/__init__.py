"""Table in, figure out: one look for every figure of the book, and no statistic computed here.

May import ``errors``, ``util`` and ``types``, and no other room: whoever draws hands over a table.

Names that matter are those of ``__all__``; ``style`` holds what they share.

A figure is drawn with matplotlib and shown as inline SVG. Colours carry CSS variables (``var(--ew-member, #0067a5)``),
so that a page follows the reader's light or dark theme, while a figure on its own keeps readable defaults. Hues are
colour-blind safe, after Okabe and Ito; shape or position always says the same as colour. Tables are data frames as
written to ``results/tables/<experiment>/``; each docstring names the columns it reads. The book page *How to read a
page* explains each kind of figure.
"""

from earwitness.figures.curves import densities, growth, hours, roc, tracks_needed
from earwitness.figures.false_alarms import ladder, levels, lines, rule
from earwitness.figures.forest import artist_forest, auc_forest, worth
from earwitness.figures.heatmap import heat
from earwitness.figures.interactive import Dial, dial
from earwitness.figures.piano_roll import roll
from earwitness.figures.recordings import from_numbers, heard, numbers_of_notes, numbers_of_sound, two_sides
from earwitness.figures.sound import spectrogram
from earwitness.figures.style import COLOURS, Figure

__all__ = [
    "COLOURS",
    "Dial",
    "Figure",
    "artist_forest",
    "auc_forest",
    "densities",
    "dial",
    "from_numbers",
    "growth",
    "heard",
    "heat",
    "hours",
    "ladder",
    "levels",
    "lines",
    "numbers_of_notes",
    "numbers_of_sound",
    "roc",
    "roll",
    "rule",
    "spectrogram",
    "tracks_needed",
    "two_sides",
    "worth",
]
