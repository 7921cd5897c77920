"""English for the planner and the checker: words, nouns, and what a sentence says."""
