"""What a Cloud TPU machine's metadata says, as documented; JAX's own detection reads the same from the same server."""

import http.server
import threading

import pytest
from jax._src.clusters import cloud_tpu_cluster  # noqa: TID251  the oracle

from jaxcnn.cluster import tpu_metadata
from jaxcnn.cluster.environment import ClusterEnvironment
from jaxcnn.cluster.tpu_metadata import has_tpu, read_attribute, tpu_environment
from jaxcnn.errors import UserError

SLICE = {"agent-worker-number": "2", "worker-network-endpoints": "10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5"}
OLD = {"agent-worker-number": "1", "worker-network-endpoints": "unused:0:127.0.0.1,unused:1:10.0.0.3"}
SLICES = SLICE | {
    "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-16'\nMEGASCALE_COORDINATOR_ADDRESS: '127.0.0.1:8080'\n"
    "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
}


@pytest.fixture
def server(monkeypatch):
    """A metadata server on this machine, and the attributes that it has."""
    attributes = {"tpu-env": ""}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            wanted = f"/computeMetadata/v1/instance/attributes/{name}"
            found = self.path == wanted and self.headers["Metadata-Flavor"] == "Google" and name in attributes
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(attributes[name].encode() if found else b"<html>no such attribute</html>")

        def log_message(self, *_):
            pass

    for name in ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{running.server_port}")
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield attributes
        running.shutdown()


@pytest.mark.parametrize(
    "attributes, coordinator, processes, index",
    [(SLICE, "10.0.0.2:8482", 4, 2), (OLD, "127.0.0.1:8482", 2, 1), (SLICES, "127.0.0.1:8482", 8, 6)],
)
def test_the_worker_is_the_one_that_jax_finds(attributes, coordinator, processes, index, server):
    server.update(attributes)
    found = tpu_environment()
    assert found == ClusterEnvironment("tpu", coordinator, processes, index, nodes=processes)
    jaxs = cloud_tpu_cluster.GceTpuCluster
    assert (jaxs.get_process_count(), jaxs.get_process_id()) == (processes, index)
    assert jaxs.get_coordinator_address(5, None) == coordinator


def test_a_machine_of_its_own_and_one_that_is_no_tpu_are_one_process(server):
    assert tpu_environment() is None and read_attribute("agent-worker-number") is None
    server.update({"agent-worker-number": "0", "worker-network-endpoints": "10.0.0.2"})
    assert tpu_environment() is None


def test_a_metadata_server_that_does_not_answer_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setattr(tpu_metadata, "_PAUSE", 0.0)
    monkeypatch.setenv("GCE_METADATA_IP", "127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 does not say which worker it is .* --processes 1"):
        read_attribute("agent-worker-number")


def test_a_machine_without_chips_is_not_asked(monkeypatch):
    monkeypatch.setattr(tpu_metadata.importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    assert has_tpu()
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # as JAX sets it
    assert not has_tpu()
