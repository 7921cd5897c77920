"""Gradients through what the host's transformers compute with kernels and in place. Source: docs/lmd.md, 11.4."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import comfy_kitchen.backends.eager.rope
import torch
from torch import Tensor


@functools.cache
def give_rope_a_gradient() -> None:
    """Register an autograd formula for the rotary position kernels of comfy_kitchen, which have none. Once, for good.

    It changes no forward pass: the kernels compute what they did, and the backward pass takes the library's own plain
    version of the same function.
    """
    plain = comfy_kitchen.backends.eager.rope
    for name in _rope_kernels():
        setup, backward = _formula(getattr(plain, name))
        torch.library.register_autograd(f"comfy_kitchen::{name}", backward, setup_context=setup)


def _rope_kernels() -> list[str]:
    plain = comfy_kitchen.backends.eager.rope
    named = [n for n in vars(plain) if "rope" in n and not n.startswith("_") and not n.endswith("_")]
    return [n for n in named if hasattr(torch.ops.comfy_kitchen, n)]


def _formula(plain: Callable) -> tuple[Callable, Callable]:
    def setup(ctx: Any, inputs: tuple, output: Any) -> None:  # noqa: ARG001 (PyTorch names its arguments)
        ctx.tensors = [i for i, value in enumerate(inputs) if isinstance(value, Tensor)]
        ctx.inputs = tuple(None if isinstance(value, Tensor) else value for value in inputs)
        ctx.save_for_backward(*(inputs[i] for i in ctx.tensors))

    def backward(ctx: Any, *outer: Tensor | None) -> tuple:
        inputs = list(ctx.inputs)
        with torch.enable_grad():
            leaves = [
                t.detach().requires_grad_(ctx.needs_input_grad[i]) for i, t in zip(ctx.tensors, ctx.saved_tensors)
            ]
            for i, leaf in zip(ctx.tensors, leaves):
                inputs[i] = leaf
            results = plain(*inputs)
            results = results if isinstance(results, tuple) else (results,)
            taken = [(r, g) for r, g in zip(results, outer) if g is not None and r.requires_grad]
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            outputs, vectors = [r for r, _ in taken], [g for _, g in taken]
            gradients = iter(torch.autograd.grad(outputs, wanted, vectors, allow_unused=True) if taken else ())
        found: list[Tensor | None] = [None] * len(inputs)
        for i, leaf in zip(ctx.tensors, leaves):
            found[i] = next(gradients, None) if leaf.requires_grad else None
        return tuple(found)

    return setup, backward


@contextlib.contextmanager
def differentiable_pass() -> Iterator[None]:
    """What a forward pass of a transformer needs to be differentiable; for this thread alone, and undone at the end.

    Transformer blocks add to their inputs in place; tensors that the backward pass needs are then kept as they were.
    """
    give_rope_a_gradient()
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        yield
