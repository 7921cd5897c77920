"""The built-in planner: English prompt -> Layout, without a model or a network. Same prompt, same layout."""

from .planner import plan

__all__ = ["plan"]
