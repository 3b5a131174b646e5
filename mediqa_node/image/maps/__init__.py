"""Score maps as pictures."""
