"""A patch on MODEL that puts another function in the place of the host's sampler function, run by run."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import comfy.patcher_extension


class UnsupportedSampler(ValueError):
    """The sampler cannot be guided step by step."""


def wrap_sampler(model: Any, key: str, around: Callable[[Callable, str, Any], Callable]) -> None:
    """Patch `model` so that sampler functions are replaced by `around(function, its name, the host's guider)`."""
    kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
    model.remove_wrappers_with_key(kind, key)
    model.add_wrapper_with_key(kind, key, functools.partial(_sampler_sample, around))


def _sampler_sample(around, executor, guider, *args, **kwargs):
    """The wrapper around KSAMPLER.sample: swap in a shallow copy with another sampler function."""
    sampler = executor.class_obj
    function = getattr(sampler, "sampler_function", None)
    if function is None:
        raise UnsupportedSampler(
            f"the sampler {type(sampler).__name__} has no sampler function that can be guided step by step: "
            "use one of the samplers that KSampler lists, for example euler, ddim or dpmpp_2m"
        )
    name = getattr(function, "__name__", type(sampler).__name__)
    replacement = copy.copy(sampler)  # SAMPLER objects are cached and shared between nodes: never change them
    replacement.sampler_function = functools.wraps(function)(around(function, name, guider))
    executor.original, executor.class_obj = replacement.sample, replacement
    return executor(guider, *args, **kwargs)
