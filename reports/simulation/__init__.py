"""Tables simulated from a known truth, and how often the verdicts on them are false."""
