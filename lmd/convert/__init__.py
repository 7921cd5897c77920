"""Layouts from and to the data of other nodes."""
