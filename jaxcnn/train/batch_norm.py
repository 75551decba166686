"""Batch norm over groups of examples of the global batch, so that its statistics do not depend on the devices.

Small groups regularise and let the batch grow (Hoffer et al. 2017, "ghost" batch norm; Goyal et al. 2017, section 2.3,
has 32). Elsewhere the group is what one device happens to hold.
"""

import inspect
from typing import Any, Literal

import jax
from einops import rearrange
from flax import linen as nn
from flax.linen.module import InterceptorContext

from jaxcnn.errors import UserError

NormGroup = int | Literal["global"]
_CALL = inspect.signature(nn.BatchNorm.__call__)


def check_group(group: NormGroup, batch_size: int, accumulate: int) -> None:
    """Raises UserError where the groups do not fill a microbatch."""
    microbatch = batch_size // accumulate
    if group != "global" and (group < 1 or microbatch % group):
        of = f"a microbatch of {microbatch} (data.batch_size / accumulate)" if accumulate > 1 else f"{microbatch}"
        fitting = max(size for size in range(1, microbatch + 1) if microbatch % size == 0 and size <= max(group, 1))
        raise UserError(f"bn_group is {group}, which does not divide {of}; try {fitting} or global")


def grouped(group: int) -> Any:
    """A context in which every nn.BatchNorm in training takes its statistics over `group` examples in a row.

    The running statistics move by the mean over the groups of what each of them would have made of them.
    """

    def intercept(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: InterceptorContext) -> Any:
        norm = context.module
        ours = isinstance(norm, nn.BatchNorm) and context.method_name == "__call__" and norm.path  # () is `alone` below
        if not ours:
            return call(*args, **kwargs)
        given = _CALL.bind(norm, *args, **kwargs).arguments
        x, mask, running = given.pop("x"), given.pop("mask", None), given.get("use_running_average")
        if norm.use_running_average if running is None else running:
            return call(*args, **kwargs)
        alone = norm.clone(parent=None, name=None)
        variables = dict(norm.variables)
        more = {name: value for name, value in given.items() if name != "self"}

        def apply(part: jax.Array, part_mask: jax.Array | None) -> Any:
            return alone.apply(variables, part, mask=part_mask, mutable=["batch_stats"], **more)

        split = lambda array: rearrange(array, "(groups n) ... -> groups n ...", n=group)  # noqa: E731
        per_example = mask is not None and mask.ndim == x.ndim and mask.shape[0] == x.shape[0]
        y, updated = jax.vmap(apply, in_axes=(0, 0 if per_example else None))(
            split(x), split(mask) if per_example else mask
        )
        for name, value in updated["batch_stats"].items():
            norm.put_variable("batch_stats", name, value.mean(0))
        return rearrange(y, "groups n ... -> (groups n) ...")

    return nn.intercept_methods(intercept)


def of_this_batch() -> Any:
    """A context in which every nn.BatchNorm in training leaves this batch's statistics as the running ones, alone."""

    def intercept(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: InterceptorContext) -> Any:
        norm = context.module
        if not (isinstance(norm, nn.BatchNorm) and context.method_name == "__call__"):
            return call(*args, **kwargs)
        momentum = norm.momentum
        object.__setattr__(norm, "momentum", 0.0)  # a clone would be another module, and have no place in the net
        try:
            return call(*args, **kwargs)
        finally:
            object.__setattr__(norm, "momentum", momentum)

    return nn.intercept_methods(intercept)
