"""Masked autoencoders for images (arXiv 2111.06377) and clips (arXiv 2203.12602)."""

#: Raised by one whenever a change alters the numbers that a spec produces; part of every fingerprint.
NUMERICS = 1
