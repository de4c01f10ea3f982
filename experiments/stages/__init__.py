"""What a job computes: pre-training and evaluation, as objects over the sections of a spec."""
