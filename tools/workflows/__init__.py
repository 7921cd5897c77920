"""Makes the graphs in workflows/ and their pictures."""
