"""Recipes that no user of ``earwitness`` imports.

``corpora`` holds the builders of corpora, ``training`` the training of the pocket models, ``audit_reference`` what an
audit checks shifts on. All import ``earwitness``; only ``earwitness manifest build`` and the book's catalogue of
corpora import this package.
"""
