"""Tables and claims for a reader: as text, Markdown, LaTeX, page and figure."""
