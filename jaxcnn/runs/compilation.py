"""Compilation ahead of time, with what it took: seconds, memory, and whether the compile cache had it."""

import contextlib
import contextvars
import dataclasses
import functools
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax

from jaxcnn.devices import computes_in_caller
from jaxcnn.experiment import Experiment
from jaxcnn.train.xla_flags import compiler_options

T = TypeVar("T")
HIT, MISS = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled function, to be called like the function."""

    call: Any
    seconds: float
    memory: int
    """Bytes on each device: arguments, results that are not arguments' own memory, and temporaries."""
    cache: str
    """"hit", "miss" or "off"; "shared" if another run of this process has compiled it (runs/once.py)."""
    sizes: tuple[tuple[int, ...], ...] = ()
    """The shapes of images that it is compiled for, if there are several."""

    def __str__(self) -> str:
        several = ", ".join(f"{height}x{width}" for height, width, *_ in self.sizes)
        told = f"{self.seconds:.1f} s, {self.memory / 2**20:,.0f} MiB per device, compile cache {self.cache}"
        return f"for {several}, {told}" if several else told


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For tracing: what it makes stays, and looking through it again and again is a quarter of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def lower_ahead(jitted: Any, *abstract: Any, options: dict[str, Any] | None = None) -> Callable[[], Compiled]:
    """Traces a jitted function for arguments of these shapes; what comes back compiles it, with XLA's `options`."""
    start = time.perf_counter()
    with no_garbage_collection():
        lowered = jitted.lower(*abstract)
    return functools.partial(_compile, lowered, time.perf_counter() - start, options or None)


def _compile(lowered: Any, seconds: float, options: dict[str, Any] | None) -> Compiled:
    """Compiles what was traced in so many seconds."""
    events: list[str] = []
    own = threading.get_ident()

    def listen(event: str, **_: Any) -> None:
        if event in (HIT, MISS) and threading.get_ident() == own:
            events.append(event)

    jax.monitoring.register_event_listener(listen)
    start = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=options)
    finally:
        jax.monitoring.unregister_event_listener(listen)
    seconds += time.perf_counter() - start
    memory = compiled.memory_analysis()
    size = 0
    if memory is not None:
        size = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        size -= memory.alias_size_in_bytes
    cache = "off" if not events else "hit" if MISS not in events else "miss"
    return Compiled(_in_caller(compiled) if computes_in_caller() else compiled, seconds, size, cache)


def _in_caller(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """The same, which waits for its arguments, so that it computes in the thread that calls it."""

    def call(*arguments: Any) -> Any:
        return compiled(*jax.block_until_ready(arguments))

    return call


def compile_ahead(jitted: Any, *abstract: Any, options: dict[str, Any] | None = None) -> Compiled:
    """Compiles a jitted function for arguments of these shapes, with these options of XLA's."""
    return lower_ahead(jitted, *abstract, options=options)()


def beside(make: Callable[[], T]) -> Future[T]:
    """What is traced or compiled in a thread, in the context of the caller, beside what the caller does next."""
    thread = ThreadPoolExecutor(1)
    made = thread.submit(contextvars.copy_context().run, make)
    thread.shutdown(wait=False)
    return made


def by_image(shapes: Sequence[tuple[int, int, int]], programs: Sequence[Compiled]) -> Compiled:
    """Train steps for images of these shapes, (height, width, channels), as one; a call takes that of its batch."""
    calls = dict(zip(shapes, (program.call for program in programs), strict=True))
    caches = {program.cache for program in programs}

    def call(state: Any, frozen: Any, batch: Any) -> Any:
        of_several = batch[0] if isinstance(batch, tuple) else batch  # runs/several_steps.py
        return calls[of_several["image"].shape[-3:]](state, frozen, batch)

    return Compiled(
        call,
        sum(program.seconds for program in programs),
        max(program.memory for program in programs),
        caches.pop() if len(caches) == 1 else "miss",
        tuple(shapes),
    )


def lower_for(experiment: Experiment, jitted: Any, *abstract: Any) -> Callable[[], Compiled]:
    """`lower_ahead` with the precision and the options that the experiment asks for."""
    with jax.default_matmul_precision(experiment.precision):
        options = compiler_options(experiment.xla_flags, experiment.deterministic)
        return lower_ahead(jitted, *abstract, options=options)


def compile_for(experiment: Experiment, jitted: Any, *abstract: Any) -> Compiled:
    """`compile_ahead` with the same."""
    return lower_for(experiment, jitted, *abstract)()
