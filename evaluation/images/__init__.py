"""Images of a run: rows as graphs, and what draws them."""
