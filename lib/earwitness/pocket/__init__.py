"""The embedded default world: a seeded composer, tiny models in real formats, their training."""
