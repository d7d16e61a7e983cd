"""The only code that runs a network."""
