"""The built-in planner: English prompt -> Layout, without a model, a network or a download. Same prompt, same layout."""

from .planner import plan

__all__ = ["plan"]
