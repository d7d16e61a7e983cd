"""Recipes that train the pocket models from nothing: codec, token model, latent diffusion, FIGARO."""
