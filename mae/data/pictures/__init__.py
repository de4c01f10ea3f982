"""Pictures in files: reading, decoding, streaming."""
