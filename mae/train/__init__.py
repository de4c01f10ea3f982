"""One loop, its optimisers, and the phases that are handed to it."""
