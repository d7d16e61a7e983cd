"""The embedded default world: a seeded composer, its rendering to sound, and tiny models' weights in real formats.

May import ``errors``, ``util`` and ``types``, and no other room.

In order: ``style`` (an artist's manner), ``composer`` (notes), ``render`` and ``midi`` (notes to sound, notes to
files), ``corpus`` (both for all tracks, with manifests). ``weights/`` holds the models; ``earwitness_build`` trains
them. ``python -m earwitness.pocket corpus`` renders what a book build hears.

Names that matter: ``corpus``, for everything; a user meets this room as ``pocket/<model>`` and a manifest.
"""
