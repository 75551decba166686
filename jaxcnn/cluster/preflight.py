"""Pre-flight: what is checked between the processes before a model is built."""

import hashlib
import json
import threading
import time
from typing import Any

import jax
import numpy as np

from jaxcnn.cluster.initialize import ProcessGroup, client
from jaxcnn.errors import UserError
from jaxcnn.train import mesh as meshes


def digest(value: Any) -> str:
    """A short hash of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def check_equal(company: ProcessGroup, facts: dict[str, Any], seconds: float) -> None:
    """Raises UserError where a process's `facts`, such as its config and data set, are not those of process 0.

    Args:
      company: the processes.
      facts: {"the config": value, ...}; values that JSON can hold. Where they differ the message has the first field.
      seconds: how long the slowest may take to get here.
    """
    if company.watch is None:
        return
    company.watch.reached("the comparison of configs", patient=True)
    mine, store = json.dumps(facts, sort_keys=True), client()
    store.key_value_set(f"jaxcnn/facts/{company.place.index}", mine)
    for index, name in enumerate(company.names):
        try:
            theirs = store.blocking_key_value_get(f"jaxcnn/facts/{index}", round(1000 * seconds))
        except Exception as error:
            raise UserError(f"{name} did not report its config within {seconds:g} s") from error
        if index == 0:
            first = json.loads(theirs)
        elif theirs != (expected := json.dumps(first, sort_keys=True)):
            assert expected
            raise UserError(f"{name} differs from {company.names[0]}: " + _difference(json.loads(theirs), first))


def check_collective(company: ProcessGroup, seconds: float) -> float:
    """One all-reduce over all devices, under a deadline; returns its seconds.

    Raises:
      UserError: it did not end, or its sum is wrong. JAX is then still inside it: the process should end.
    """
    mesh = meshes.make_mesh()
    if company.watch is not None:
        company.watch.reached("the first all-reduce", patient=True)
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
