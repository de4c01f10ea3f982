"""Pictures and clips that need no download."""
