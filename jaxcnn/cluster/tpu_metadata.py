"""TPU metadata: which process this is on a Cloud TPU machine outside of GKE, where no variable says so.

Why our own: JAX's detection (`jax.distributed.initialize()` without arguments) reads the same attributes, but has no
public name for what it found before it connects; the processes meet by name first (rendezvous.py).
"""

import importlib.util
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from jaxcnn.cluster.environment import TPU_PORT, ClusterEnvironment
from jaxcnn.errors import UserError

_SERVER = "http://{host}/computeMetadata/v1/instance/attributes/{name}"
_TRIES, _PAUSE = 6, 0.5


def has_tpu() -> bool:
    """Whether this machine may have TPU chips: libtpu is installed, and JAX, which looks for them when it is imported,
    has not told libtpu by TPU_SKIP_MDS_QUERY that there are none. Needs no network.
    """
    return importlib.util.find_spec("libtpu") is not None and "TPU_SKIP_MDS_QUERY" not in os.environ


def read_attribute(name: str) -> str | None:
    """An attribute of this machine, or None if it has none of this name.

    Raises UserError if the metadata server does not answer.
    """
    host = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(_SERVER.format(host=host, name=name), headers={"Metadata-Flavor": "Google"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    last = ""
    for attempt in range(_TRIES):
        try:
            with opener.open(request, timeout=5) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            last = str(error)
        except OSError as error:
            last = str(error)
        if attempt + 1 < _TRIES:
            time.sleep(_PAUSE)
    raise UserError(
        f"this machine has a TPU, but its metadata server {host} does not say which worker it is ({last}); give "
        "--processes 1 for one process, or --coordinator HOST:PORT --processes N --process I"
    )


def tpu_environment(
    read: Callable[[str], str | None] = read_attribute, port: int = TPU_PORT
) -> ClusterEnvironment | None:
    """Which worker of its slice, and slice of several, this machine is; None if it is the only one.

    Args:
      read: returns an attribute of the machine.
      port: at which process 0 listens.
    """
    worker, listed = read("agent-worker-number"), read("worker-network-endpoints")
    if not worker or not listed:
        return None
    # Entries are hosts, or in an older form name:id:address.
    hosts = [entry.split(":")[2] if entry.count(":") == 2 else entry for entry in listed.strip().split(",")]
    slices = dict(re.findall(r"^\s*(MEGASCALE_\w+)\s*:\s*'?([^'\n]*?)'?\s*$", read("tpu-env") or "", re.MULTILINE))
    slices |= {name: value for name, value in os.environ.items() if name.startswith("MEGASCALE_")}
    count, number = int(slices.get("MEGASCALE_NUM_SLICES") or 1), int(slices.get("MEGASCALE_SLICE_ID") or 0)
    processes = len(hosts) * count
    if processes == 1:
        return None
    host = (slices.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).partition(":")[0]
    index = number * len(hosts) + int(worker)
    return ClusterEnvironment("tpu", f"{host}:{port}", processes, index, nodes=processes)
