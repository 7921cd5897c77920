"""Benchmarks and judges of pictures. Not part of the installed pack."""
