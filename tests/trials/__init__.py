"""Trials that no test suite should wait for: faults on purpose, a real Slurm, a real database (docs/machines.md)."""
