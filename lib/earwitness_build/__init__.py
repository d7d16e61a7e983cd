"""Recipes that no user of ``earwitness`` imports: builders of corpora (``corpora``) and training (``training``).

Both import ``earwitness``; only ``earwitness manifest build`` and the book's catalogue of corpora import this package.
"""
