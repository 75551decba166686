"""The whole training loop against the bare compiled step, a whole evaluation against its step, the start of a process,
and the memory over 2,000 steps.

python benchmarks/train_loop.py [--rounds 5] [--only loop|photos|start|memory] [--photos FOLDER]

Ratios are of medians within one run, the two sides in turn, because machines are noisy; nothing here is a test.
Fashion-MNIST is read from TFDS_DATA_DIR; without it that line says that it was not run. FOLDER has class folders of
JPEGs, which are decoded anew for each batch; what `jaxcnn bench-input` says of that run is told beside its ratio.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import jax
import numpy as np
from rich.console import Console

from jaxcnn import config, create_model
from jaxcnn.data.digits import Digits
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.folder import Folder
from jaxcnn.data.memory import load
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.data.tfds import Tfds
from jaxcnn.data.transforms import HorizontalFlip, Pad, PadAndCrop, RandomResizedCrop, Resize, Rotate
from jaxcnn.experiment import Checkpoints, Data, Experiment
from jaxcnn.models import FC
from jaxcnn.runs.bench_input import bench_input
from jaxcnn.runs.display import Display
from jaxcnn.runs.evaluation import compile_evaluation_step, evaluate, evaluation_batches, placed
from jaxcnn.runs.loop import run
from jaxcnn.runs.member import train_batches
from jaxcnn.runs.program import compile_train_step
from jaxcnn.runs.reader import Reader
from jaxcnn.runs.setup import Plan, initial_state, make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.train import mesh as meshes
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.optimizers import SGD

INTERVAL = 25
ALONE = {"train_split": "train", "evaluation_splits": (), "test_splits": ()}  # nothing but training


def experiment(name: str, length: int, photos: str = "") -> Experiment:
    never = epochs(1e9)
    common = {
        "optimizer": SGD(learning_rate=0.01),
        "duration": steps(length),
        "evaluate_every": never,
        "log_every": steps(INTERVAL if name not in ("vgg", "photos") else 4),
        "checkpoints": Checkpoints(every=never),
    }
    if name == "recipe":  # that of experiments/lenet_digits.py: every image is rotated and shifted
        resize = Resize((32, 32))
        augment = (resize, Rotate(10.0), PadAndCrop(3))
        data = Data((32, 32, 1), Digits(), augment=augment, preprocess=(resize,), batch_size=64)
        return Experiment(create_model("lenet5"), data, **common)
    if name == "vgg":
        head = FC(classes=10, widths=(512, 512), names=("fc6", "fc7", "fc8"), grid=(1, 1), dropout=0.5)
        data = Data((32, 32, 3), source=Synthetic((32, 32, 3), train=2048), batch_size=64, **ALONE)
        return Experiment(create_model("vgg11", head=head), data, **common)
    if name == "photos":
        augment = (RandomResizedCrop(32), HorizontalFlip())
        data = Data(
            (32, 32, 3), Folder(photos), augment=augment, preprocess=(Resize((32, 32)),), batch_size=16, **ALONE
        )
        data = dataclasses.replace(data, memory_limit=0)
        head = FC(classes=2, widths=(512, 512), names=("fc6", "fc7", "fc8"), grid=(1, 1), dropout=0.5)
        return Experiment(create_model("vgg11", head=head), data, **common)
    source, pad = (Digits(), Resize((32, 32))) if name == "digits" else (Tfds("fashion_mnist"), Pad(2))
    data = Data((32, 32, 1), source=source, augment=(pad,), batch_size=128, **ALONE)
    return Experiment(create_model("lenet5"), data, **common)


def in_memory(made: Experiment) -> Plan:
    """The plan with its images decoded, so that rounds do not decode them anew."""
    plan = make_plan(made)
    loaded, rest = load(plan.train, made.data.augment, with_image(made.data.image_shape, LABEL), made.data.memory_limit)
    data = dataclasses.replace(made.data, augment=rest)
    return dataclasses.replace(plan, train=loaded, experiment=dataclasses.replace(made, data=data))


def loop_rates(plan: Plan) -> list[float]:
    """Images per second of each logged interval but the first, as metrics.jsonl has them."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "run"
        encoded = config.encode(plan.experiment)
        quiet = Console(file=open(os.devnull, "w"))  # noqa: SIM115
        with start_run(path, encoded, pathlib.Path(__file__), plan.dataset()) as directory, Display(quiet) as display:
            run(plan, directory, display)
            rates = [line.get("examples_per_second") for line in directory.metrics()]
            return [rate for rate in rates if rate is not None][1:]


def bare_rates(plan: Plan, compiled: jax.stages.Compiled, count: int) -> list[float]:
    """Images per second of the compiled step on one batch that stays on the device."""
    data = plan.experiment.data
    batch = train_batches(plan, plan.train, data.augment)[0]
    batch = placed(batch, plan.experiment, plan.mesh, evaluated=False)
    state = jax.device_put(initial_state(plan.experiment, plan.optimizer), meshes.replicated(plan.mesh))
    rates = []
    for _ in range(count + 1):
        start = time.perf_counter()
        for _ in range(plan.log_every):
            state, metrics = compiled(state, {}, batch)
        jax.block_until_ready(metrics)
        rates.append(plan.log_every * data.batch_size / (time.perf_counter() - start))
    return rates[1:]


def compare_loop(name: str, rounds: int, length: int, photos: str = "") -> dict[str, float]:
    plan = in_memory(experiment(name, length, photos))
    compiled = compile_train_step(plan).call
    bare: list[float] = []
    whole: list[float] = []
    for _ in range(rounds):
        bare += bare_rates(plan, compiled, length // plan.log_every - 1)
        whole += loop_rates(plan)
    medians = {"bare step, images/s": statistics.median(bare), "whole loop, images/s": statistics.median(whole)}
    return medians | {"ratio": medians["whole loop, images/s"] / medians["bare step, images/s"]}


def compare_evaluation(name: str, rounds: int) -> dict[str, float]:
    """Images per second of evaluations of the training split, read from memory, and of the step on one placed batch."""
    plan = make_plan(experiment(name, 1))
    made, mesh = plan.experiment, plan.mesh
    fields = with_image(made.data.image_shape, LABEL)
    examples, transforms = load(plan.train, made.data.preprocess, fields, made.data.memory_limit)
    step = compile_evaluation_step(made, mesh).call
    state = jax.device_put(initial_state(made, plan.optimizer), meshes.replicated(mesh))
    batches = evaluation_batches(made, examples, transforms)
    place = functools.partial(placed, experiment=made, mesh=mesh, evaluated=True)
    one = place(batches[0])
    times: dict[str, list[float]] = {"bare": [], "whole": []}
    for _ in range(rounds + 1):
        start = time.perf_counter()
        for _ in range(len(batches)):
            jax.block_until_ready(step(state.params, state.stats, {}, one))
        times["bare"].append(time.perf_counter() - start)
        start = time.perf_counter()
        with contextlib.closing(Reader(made.data.workers)) as reader:
            evaluate(step, [(state.params, state.stats)], reader.evaluation("train", batches), examples, place)
        times["whole"].append(time.perf_counter() - start)
    bare, whole = (len(examples) / statistics.median(seconds[1:]) for seconds in times.values())
    return {"bare step, images/s": bare, "whole evaluation, images/s": whole, "ratio": whole / bare}


def seconds_to_first_step(cache: str) -> float:
    """From the start of the process to the first logged step of LeNet-5 on the digits."""
    with tempfile.TemporaryDirectory() as folder:
        run_path = pathlib.Path(folder) / "run"
        file = pathlib.Path(__file__).parent.parent / "experiments" / "lenet_digits.py"
        command = [sys.executable, "-m", "jaxcnn.launch", file, "--workdir", run_path]
        command += ["--duration", "2000steps", "--log-every", "1steps"]
        start = time.perf_counter()
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        metrics = run_path / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        process.kill()
        process.wait()
        return seconds


def start_up(rounds: int) -> dict[str, float]:
    cold, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(seconds_to_first_step(cache))
            warm.append(seconds_to_first_step(cache))
    return {"cold, s": statistics.median(cold), "with the compile cache, s": statistics.median(warm)}


def memory_slope(length: int = 2000) -> dict[str, float]:
    """Resident memory of this process over a run, as a line fitted to its last three quarters."""
    plan = in_memory(experiment("digits", length))
    samples: list[tuple[float, int]] = []
    done = threading.Event()

    def sample() -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not done.wait(0.05):
            pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
            samples.append((time.perf_counter(), pages * page))

    thread = threading.Thread(target=sample)
    thread.start()
    started = time.perf_counter()
    loop_rates(plan)
    seconds = time.perf_counter() - started
    done.set()
    thread.join()
    times, sizes = np.array(samples[len(samples) // 4 :]).T
    slope = np.polyfit(times, sizes, 1)[0] * seconds / length
    return {"steps": length, "resident at the end, MiB": sizes[-1] / 2**20, "slope, bytes per step": slope}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["loop", "photos", "start", "memory"])
    parser.add_argument("--photos")
    arguments = parser.parse_args()
    report: dict[str, object] = {"device": jax.devices()[0].device_kind, "cpus": os.cpu_count(), "jax": jax.__version__}
    if arguments.only in (None, "loop"):
        if os.environ.get("TFDS_DATA_DIR"):
            report["LeNet-5, Fashion-MNIST, batch 128"] = compare_loop("fashion", arguments.rounds, 200)
        else:
            report["LeNet-5, Fashion-MNIST, batch 128"] = "not run: TFDS_DATA_DIR is not set"
        report["LeNet-5, digits, rotated and shifted, batch 64"] = compare_loop("recipe", arguments.rounds, 200)
        report["evaluation, LeNet-5, digits, batch 512"] = compare_evaluation("recipe", 10 * arguments.rounds)
        report["VGG-A, 32 px, synthetic, batch 64"] = compare_loop("vgg", arguments.rounds, 16)
    if arguments.photos and arguments.only in (None, "photos"):
        compared = compare_loop("photos", arguments.rounds, 12, arguments.photos)
        found = bench_input(experiment("photos", 12, arguments.photos))
        told = {"expected of it, images/s": found.expected, "bottleneck": found.verdict()}
        report["VGG-A, crops of 32 px of JPEGs, batch 16"] = compared | told
    if arguments.only in (None, "start"):
        report["start to first step, LeNet-5 on digits"] = start_up(arguments.rounds)
    if arguments.only in (None, "memory"):
        report["memory"] = memory_slope()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
