"""One edge node: take in, clean, keep, execute."""
