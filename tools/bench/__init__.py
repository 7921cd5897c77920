"""Measurements: `python run.py bench NAME`."""
