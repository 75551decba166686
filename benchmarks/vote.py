"""What the vote behind each step costs: two processes on this machine, with the vote, without, and with JAX's own way.

python benchmarks/vote.py [--rounds 50]

The three sides take blocks of steps in turn, in an order that changes. Figures are medians over all blocks: by the
clock those of the slower process, on the CPU of both, which other work on the machine moves less. JAX's own way is
`multihost_utils.reached_preemption_sync_point`, which knows SIGTERM only. On loopback and CPU devices: a cluster's
network and devices have other costs.
"""

import argparse
import collections
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
from jax.experimental import multihost_utils

from jaxcnn import create_model
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs.consensus import Consensus
from jaxcnn.runs.member import train_batches
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.stepper import stepper_for
from jaxcnn.train.duration import steps
from jaxcnn.train.optimizers import SGD

PROCESSES = 2
NETS = {
    "linear, 8x8, batch 64": ("linear", 8, 64, 20),
    "LeNet-5, 32x32, batch 128": ("lenet5", 32, 128, 10),
}
"""Model, side in pixels, global batch, steps of a block."""
SIDES = ("without", "vote", "sync point")


def seconds_per_step(name: str, rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """Of each block, on this process: by the clock, of all its threads on the CPU, and the median of what a call of the
    vote, or of JAX's function, holds up the thread that dispatches the steps.
    """
    model, side, batch_size, length = NETS[name]
    source = Synthetic((side, side, 1), classes=10, train=batch_size)
    data = Data((side, side, 1), source=source, train_split="train", evaluation_splits=(), batch_size=batch_size)
    # At this rate the losses stay finite, however long it runs.
    optimizer = SGD(learning_rate=1e-6)
    experiment = Experiment(create_model(model, classes=10), data, optimizer=optimizer, duration=steps(10))
    plan = make_plan(experiment)
    stepper = stepper_for([plan])
    step = stepper.lower_train()().call
    state = stepper.joined(stepper.create())
    placed = stepper.put([train_batches(plan, plan.train, ())[0]])
    consensus = Consensus(plan.mesh, lambda: False)
    count = 0

    def sync_point() -> None:
        nonlocal count
        count += 1
        multihost_utils.reached_preemption_sync_point(count)

    asks: dict[str, Callable[[], object]] = {
        "without": lambda: None,
        "vote": lambda: consensus.vote("a step"),
        "sync point": sync_point,
    }
    times: dict[str, list[tuple[float, float, float]]] = {side: [] for side in SIDES}
    for number in range(rounds + 1):
        for turn in range(len(SIDES)):
            chosen = SIDES[(number + turn) % len(SIDES)]
            in_flight: collections.deque[jax.Array] = collections.deque(maxlen=2)
            multihost_utils.sync_global_devices(f"{name} {number} {turn}")
            start, used = time.perf_counter(), time.process_time()
            calls = []
            for _ in range(length):
                asked = time.perf_counter()
                asks[chosen]()
                calls.append(time.perf_counter() - asked)
                state, metrics = step(state, {}, placed)
                if len(in_flight) == 2:  # as the loop waits
                    jax.block_until_ready(in_flight[0])
                in_flight.append(metrics["bad_step"])
            jax.block_until_ready(state)
            if number:  # the first round compiles the vote
                taken, used = time.perf_counter() - start, time.process_time() - used
                times[chosen].append((taken / length, used / length, statistics.median(calls)))
    return times


def work(index: int, port: int, rounds: int, out: pathlib.Path) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", PROCESSES, index, cluster_detection_method="deactivate")
    out.write_text(json.dumps({name: seconds_per_step(name, rounds) for name in NETS}))


def summary(found: list[dict[str, list[tuple[float, float, float]]]]) -> dict[str, object]:
    """Medians in milliseconds, and of the ratios of blocks that stood side by side, with their quartiles.

    By the clock, and of calls, it is the slower process that counts; on the CPU both together.
    """
    blocks = {side: list(zip(*(each[side] for each in found), strict=True)) for side in SIDES}
    clock = {side: [max(taken for taken, _, _ in block) for block in blocks[side]] for side in SIDES}
    cpu = {side: [sum(used for _, used, _ in block) for block in blocks[side]] for side in SIDES}
    report: dict[str, object] = {}
    for kind, times in (("clock", clock), ("CPU", cpu)):
        for side in SIDES:
            report[f"{side}, {kind}, ms a step"] = 1000 * statistics.median(times[side])
            if side != "without":
                ratios = [a / b for a, b in zip(times[side], times["without"], strict=True)]
                low, middle, high = statistics.quantiles(ratios, n=4)
                report[f"{side} over without, {kind}"] = {"median": middle, "quartiles": [low, high]}
    for side in SIDES[1:]:
        calls = [max(call for _, _, call in block) for block in blocks[side]]
        report[f"{side}, ms a call"] = 1000 * statistics.median(calls)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--worker", nargs=3, metavar=("INDEX", "PORT", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        index, port, out = arguments.worker
        work(int(index), int(port), arguments.rounds, pathlib.Path(out))
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        outs = [pathlib.Path(folder, str(index)) for index in range(PROCESSES)]
        started = [
            subprocess.Popen(
                [sys.executable, __file__, "--rounds", str(arguments.rounds), "--worker", str(index), str(port), out],
                stdout=subprocess.DEVNULL,
            )
            for index, out in enumerate(outs)
        ]
        try:
            codes = [process.wait() for process in started]
        finally:
            for process in started:
                process.kill()
        if any(codes):
            raise SystemExit(f"a process ended with {codes}")
        found = [json.loads(out.read_text()) for out in outs]
    report: dict[str, object] = {
        "device": "cpu",
        "cpus": os.cpu_count(),
        "jax": jax.__version__,
        "processes": PROCESSES,
        "rounds": arguments.rounds,
        "load average before and after": [load, os.getloadavg()[0]],
    }
    print(json.dumps(report | {name: summary([each[name] for each in found]) for name in NETS}, indent=2))


if __name__ == "__main__":
    main()
