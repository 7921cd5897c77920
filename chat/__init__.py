"""Answers of chat models, whatever they are asked for: shared by the layout planner and the caption."""
