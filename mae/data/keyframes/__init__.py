"""Keyframes of films: what lies where in them, as data sets of action detection state it."""
