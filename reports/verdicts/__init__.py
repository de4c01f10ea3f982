"""What measurements say: cells, claims, and the verdicts on both."""
