"""Tables and figures, rebuilt from finished runs."""
