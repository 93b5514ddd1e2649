"""Experiments: one file each; `shoal experiment NAME` runs one and says what it found."""
