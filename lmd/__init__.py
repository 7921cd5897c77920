"""LMD, LLM-grounded Diffusion (arXiv 2305.13655): the algorithm, in torch and plain Python, without any host."""

from .layout import Box, Layout, LayoutObject

__all__ = ["Box", "Layout", "LayoutObject"]
