"""Rematerialisation: less memory for activations, for one more forward pass (Chen et al. 2016, section 4)."""

from typing import Any

import jax
from flax import linen as nn
from flax.linen.module import InterceptorContext

from jaxcnn.train.step import LossFn


def rematerialized(loss_fn: LossFn) -> LossFn:
    """The same loss, whose backward pass keeps only what enters each block or stage and computes the rest anew.

    A block is a module of the backbone that is made of modules: a residual block, a dense layer, an inception module.
    A stage is what a backbone without blocks does in its method `stage`.
    """

    def with_blocks(*arguments: Any) -> Any:
        with nn.intercept_methods(_rematerialize):
            return loss_fn(*arguments)

    return with_blocks


def _rematerialize(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: InterceptorContext) -> Any:
    module, method = context.module, context.method_name
    path = module.path
    if path[:1] != ("backbone",):
        return call(*args, **kwargs)
    block = method == "__call__" and len(path) == 2 and _has_modules(module)
    stage = method == "stage" and len(path) == 1
    if not (block or stage) or _INSIDE:
        return call(*args, **kwargs)

    arrays = [arg for arg in args if isinstance(arg, jax.Array)]
    others = args[len(arrays) :]  # such as a stage's number

    def inside(module: nn.Module, *arrays: jax.Array) -> Any:
        _INSIDE.append(path)
        try:
            return getattr(module, method)(*arrays, *others, **kwargs)
        finally:
            _INSIDE.pop()

    return nn.remat(inside)(module, *arrays)


_INSIDE: list[tuple[str, ...]] = []  # the block that is being traced: nothing in it is rematerialised again


def _has_modules(module: nn.Module) -> bool:
    return any(hasattr(part, "items") for part in module.variables.get("params", {}).values())
