"""LMD's two stages on the host."""
