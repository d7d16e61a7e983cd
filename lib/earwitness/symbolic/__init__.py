"""Scores instead of sound: MIDI files read under limits, FIGARO's tokens and descriptions, windows, neighbours.

May import ``errors``, ``util`` and ``types``. It lies below ``data``: reading a MIDI file needs no manifest, while
checking a folder needs to read MIDI files.

In order: ``midi`` (a file to notes), ``chords``, ``figaro_vocabulary``, ``figaro_tokens`` and ``miditok`` (notes to
tokens), ``figaro_network`` (the network over FIGARO's, on torch alone), ``windows`` (tokens to what a model sees),
``neighbours`` (transposed, other dynamics, other tempo), ``fingerprint`` (copies of one piece).

Names that matter: ``midi.read``, ``windows.SymbolicSpec``. Rules follow the public repository dvruette/figaro (MIT),
commit 9da3029, in our own words and code. The book page *Methods: symbolic models* explains what is scored.
"""
