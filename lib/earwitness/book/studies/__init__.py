"""What single pages compute."""
