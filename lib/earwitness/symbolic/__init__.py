"""Scores instead of sound: MIDI files read under limits, FIGARO's tokens and descriptions, windows, neighbours.

Rules follow the public repository dvruette/figaro (MIT), commit 9da3029, in our own words and code. The book page
*Methods: symbolic models* explains what is scored.
"""
