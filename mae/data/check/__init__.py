"""What is wrong with a data set, said before a run: ``python -m mae.data.check PATH``."""
