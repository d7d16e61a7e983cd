"""FIGARO's golden pieces: the tokens and descriptions that the original writes for `tiny_midi.golden_a` and `golden_b`.

Run lengths are value x count, with ``<bos>`` and ``<eos>``.
"""

from __future__ import annotations

TOKENS_A = """
Bar_1 | Time Signature_4/4
Position_0 | Chord_C:maj
Position_0 | Tempo_16
Position_0 | Instrument_drum | Pitch_drum_36 | Velocity_27 | Duration_1
Position_0 | Instrument_Acoustic Grand Piano | Pitch_60 | Velocity_20 | Duration_11
Position_0 | Instrument_Acoustic Grand Piano | Pitch_64 | Velocity_20 | Duration_11
Position_0 | Instrument_Acoustic Grand Piano | Pitch_67 | Velocity_20 | Duration_11
Position_0 | Instrument_Electric Bass (finger) | Pitch_36 | Velocity_24 | Duration_17
Position_12 | Chord_A:min7
Position_12 | Instrument_drum | Pitch_drum_42 | Velocity_17 | Duration_1
Position_12 | Instrument_Acoustic Grand Piano | Pitch_72 | Velocity_25 | Duration_4
Position_24 | Instrument_Acoustic Grand Piano | Pitch_57 | Velocity_16 | Duration_14
Position_24 | Instrument_Acoustic Grand Piano | Pitch_60 | Velocity_16 | Duration_14
Position_24 | Instrument_Acoustic Grand Piano | Pitch_64 | Velocity_16 | Duration_14
Position_24 | Instrument_Acoustic Grand Piano | Pitch_67 | Velocity_16 | Duration_14
Position_25 | Instrument_Electric Bass (finger) | Pitch_45 | Velocity_24 | Duration_17
Bar_2 | Time Signature_3/4
Position_0 | Chord_A:min7
Position_0 | Tempo_16
Position_0 | Chord_F:maj
Position_0 | Instrument_drum | Pitch_drum_36 | Velocity_27 | Duration_1
Position_0 | Instrument_Acoustic Grand Piano | Pitch_65 | Velocity_22 | Duration_11
Position_0 | Instrument_Acoustic Grand Piano | Pitch_69 | Velocity_22 | Duration_11
Position_0 | Instrument_Acoustic Grand Piano | Pitch_72 | Velocity_22 | Duration_11
Position_0 | Instrument_Electric Bass (finger) | Pitch_41 | Velocity_32 | Duration_19
Position_12 | Instrument_Acoustic Grand Piano | Pitch_67 | Velocity_22 | Duration_11
Position_24 | Chord_N:N
Position_24 | Instrument_drum | Pitch_drum_38 | Velocity_0 | Duration_0
Position_24 | Instrument_Acoustic Grand Piano | Pitch_71 | Velocity_8 | Duration_7
"""

IDS_A = """
605 14 1116 1260 1116 111 1116 256 421 540 547 1116 128 317 533 557 1116 128 321 533 557 1116 128 324 533 557 1116
161 293 537 563 1128 1338 1128 256 427 530 547 1128 128 329 538 550 1140 128 314 529 560 1140 128 317 529 560 1140
128 321 529 560 1140 128 324 529 560 1141 161 302 537 563 606 13 1116 1338 1116 111 1116 1300 1116 256 421 540 547
1116 128 322 535 557 1116 128 326 535 557 1116 128 329 535 557 1116 161 298 545 565 1128 128 324 535 557 1140 1356
1140 256 423 513 546 1140 128 328 521 553
"""

BARS_A = "0 1x68 2x50 0"

POSITIONS_A = "0x32 12x12 24x20 25x5 0x33 12x5 24x12 0"

DESCRIPTION_A = """
Bar_1 | Time Signature_4/4 | Note Density_1 | Mean Velocity_20 | Mean Pitch_14 | Mean Duration_32
Instrument_Acoustic Grand Piano | Instrument_Electric Bass (finger) | Instrument_drum | Chord_C:maj
Chord_A:min7
Bar_2 | Time Signature_3/4 | Note Density_1 | Mean Velocity_20 | Mean Pitch_14 | Mean Duration_32
Instrument_Acoustic Grand Piano | Instrument_Electric Bass (finger) | Instrument_drum | Chord_F:maj
Chord_N:N
"""

DESCRIPTION_IDS_A = """
454 14 322 374 401 452 95 128 223 224 302 455 13 322 374 401 452 95 128 223 264 320
"""

TOKENS_B = """
Bar_1 | Time Signature_6/8
Position_0 | Chord_D:None
Position_0 | Instrument_Distortion Guitar | Pitch_50 | Velocity_25 | Duration_11
Position_0 | Instrument_Flute | Pitch_86 | Velocity_32 | Duration_10
Position_1 | Instrument_Flute | Pitch_88 | Velocity_3 | Duration_0
Position_6 | Instrument_Distortion Guitar | Pitch_57 | Velocity_25 | Duration_11
Position_18 | Chord_N:N
Position_24 | Instrument_Distortion Guitar | Pitch_54 | Velocity_1 | Duration_11
Bar_2 | Time Signature_6/8
Position_0 | Chord_N:N
Bar_3 | Time Signature_5/8
Position_0 | Chord_N:N
Position_0 | Chord_D:min
Position_0 | Instrument_Distortion Guitar | Pitch_62 | Velocity_15 | Duration_18
Position_0 | Instrument_Flute | Pitch_74 | Velocity_15 | Duration_5
Position_6 | Instrument_Distortion Guitar | Pitch_65 | Velocity_15 | Duration_17
Bar_4 | Time Signature_5/8
Position_0 | Chord_D:min
Position_0 | Chord_N:N
Position_0 | Instrument_drum | Pitch_drum_36 | Velocity_22 | Duration_3
Position_0 | Instrument_drum | Pitch_drum_42 | Velocity_22 | Duration_3
Bar_5 | Time Signature_5/8
Position_0 | Chord_N:N
Position_0 | Instrument_drum | Pitch_drum_49 | Velocity_32 | Duration_0
"""

IDS_B = """
605 28 1116 1283 1116 158 307 538 557 1116 201 343 545 556 1117 201 345 516 546 1122 158 314 538 557 1134 1356 1140
158 311 514 557 606 28 1116 1356 607 27 1116 1356 1116 1277 1116 158 319 528 564 1116 201 331 528 551 1122 158 322
528 563 608 27 1116 1277 1116 1356 1116 256 421 535 549 1116 256 427 535 549 609 27 1116 1356 1116 256 434 545 546
"""

BARS_B = "0 1x31 2x4 3x21 4x16 5x9 0"

POSITIONS_B = "0x15 1x5 6x5 18x2 24x5 0x20 6x5 0x26"

DESCRIPTION_B = """
Bar_1 | Time Signature_6/8 | Note Density_0 | Mean Velocity_17 | Mean Pitch_17 | Mean Duration_32
Instrument_Flute | Instrument_Distortion Guitar | Chord_D:None | Chord_N:N
Bar_2 | Time Signature_6/8 | Note Density_0 | Mean Velocity_0 | Mean Pitch_0 | Mean Duration_0 | Chord_N:N
Bar_3 | Time Signature_5/8 | Note Density_0 | Mean Velocity_15 | Mean Pitch_17 | Mean Duration_32
Instrument_Flute | Instrument_Distortion Guitar | Chord_D:min
Bar_4 | Time Signature_5/8 | Note Density_0 | Mean Velocity_22 | Mean Pitch_10 | Mean Duration_28
Instrument_drum | Chord_N:N
Bar_5 | Time Signature_5/8 | Note Density_0 | Mean Velocity_32 | Mean Pitch_12 | Mean Duration_20
Instrument_drum | Chord_N:N
"""

DESCRIPTION_IDS_B = """
454 28 321 371 404 452 168 125 247 320 455 28 321 354 387 420 320 456 27 321 369 404 452 168 125 241 457 27 321 376
397 448 223 320 458 27 321 386 399 440 223 320
"""
