"""Pre-flight: what is checked between the processes before a model is built."""

import contextlib
import json
import threading
import time
from typing import Any

import jax
import numpy as np

from jaxcnn.cluster.initialize import ProcessGroup
from jaxcnn.cluster.store import Store
from jaxcnn.errors import UserError
from jaxcnn.train import mesh as meshes


def check_equal(group: ProcessGroup, facts: dict[str, Any], seconds: float) -> None:
    """Raises UserError on all processes if the `facts` of one, such as its config, are not those of process 0.

    Why our own: JAX's `multihost_utils.assert_equal` compares by a collective, which two platforms cannot do and a bad
    network does not end, and does not say which process differs in what.

    Args:
      group: the processes.
      facts: {"the config": value, ...}; values that JSON can hold. If they differ, the message has the first field.
      seconds: how long the slowest may take to get here.
    """
    if group.store is None:
        return
    group.report_progress("the comparison of configs", patient=True)
    deadline = time.monotonic() + seconds
    mine = json.dumps(facts, sort_keys=True)
    group.store.set(f"facts/{group.index}", mine)
    if group.index == 0:
        problem = _compare(group, group.store, deadline, seconds)
        group.store.set("facts compared", problem)
    else:
        found = _wait(group.store, "facts compared", 1, deadline + 5)
        problem = found.get("facts compared", f"{group.names[0]} did not compare the configs within {seconds:g} s")
    if problem:
        raise UserError(problem)


def _compare(group: ProcessGroup, store: Store, deadline: float, seconds: float) -> str:
    """What is not the same, or "": process 0 looks at all of them."""
    found = _wait(store, "facts/", group.size, deadline)
    first = found["facts/0"]
    for index, name in enumerate(group.names):
        theirs = found.get(f"facts/{index}")
        if theirs is None:
            return f"{name} did not report its config within {seconds:g} s"
        if theirs != first:
            return f"{name} differs from {group.names[0]}: " + _difference(json.loads(theirs), json.loads(first))
    return ""


def _wait(store: Store, prefix: str, count: int, deadline: float) -> dict[str, str]:
    """As many texts as there are at the deadline, or `count` of them before."""
    while True:
        found: dict[str, str] = {}
        with contextlib.suppress(OSError):  # the heartbeat notices when this goes on
            found = store.get(prefix)
        if len(found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def check_collective(group: ProcessGroup, seconds: float) -> float:
    """One all-reduce over all devices, under a deadline; returns its seconds.

    Raises:
      UserError: it did not end, or its sum is wrong. JAX is then still inside it: the process should end.
    """
    mesh = meshes.make_mesh()
    group.report_progress("the first all-reduce", patient=True)
    done: dict[str, Any] = {}

    def reduce() -> None:
        start = time.perf_counter()
        try:
            ones = np.ones((jax.local_device_count(),), np.float32)
            whole = jax.make_array_from_process_local_data(meshes.split(mesh), ones)
            total = jax.jit(lambda x: x.sum(), out_shardings=meshes.replicated(mesh))(whole)
            done["sum"] = float(total)
        except Exception as error:
            done["error"] = error
        done["seconds"] = time.perf_counter() - start

    thread = threading.Thread(target=reduce, daemon=True)
    thread.start()
    thread.join(seconds)
    hint = (
        "see that the nodes reach each other on all ports, and name the network to use with NCCL_SOCKET_IFNAME "
        "(GPU; NCCL_DEBUG=INFO says more) or by the host's own address in /etc/hosts (CPU)"
    )
    if thread.is_alive():
        raise UserError(f"the first all-reduce over {mesh.size} devices did not end within {seconds:g} s; {hint}")
    if "error" in done:
        raise UserError(f"the first all-reduce over {mesh.size} devices failed: {done['error']}; {hint}")
    if done["sum"] != mesh.size:
        raise UserError(f"the first all-reduce over {mesh.size} devices gave {done['sum']}; {hint}")
    return done["seconds"]


def _difference(theirs: dict[str, Any], first: dict[str, Any]) -> str:
    from jaxcnn import config

    for what, value in first.items():
        changed = config.differences(value, theirs.get(what))
        for field, (old, new) in changed.items():
            field = f" in {field}" if field else ""
            return f"{what} is not the same{field}: {_short(new)} there, {_short(old)} on process 0"
    return "it reports other facts"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."
