"""Trains the demo model and draws its pictures."""
