"""Pictures and clips: where the pixels come from and how they are augmented."""
