"""One film, opened: which frame is which, read by decord or by PyAV, or as a folder of pictures."""
