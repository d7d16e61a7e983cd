"""Recipes that no user of ``earwitness`` imports: builders of corpora (``corpora``), training
(``training``), and the reference that an audit checks shifts on (``audit_reference``).

Both import ``earwitness``; only ``earwitness manifest build`` and the book's catalogue of corpora import this package.
"""
