"""Clips in files: reading, decoding, streaming, and which frames a model sees."""
