"""The papers' figures from weights: ``python -m mae.visualise FILE_OR_FOLDER weights=PATH to=FOLDER``."""
