"""Shifted test sets: what a model is tested on besides."""
