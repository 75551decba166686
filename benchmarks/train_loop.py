"""The whole training loop against the bare compiled step, a whole evaluation against its step, the start of a process
and of commands, and the memory over 2,000 steps.

python benchmarks/train_loop.py [--rounds 5] [--only recipes|loop|photos|start|commands|memory] [--photos FOLDER]
    [--before CHECKOUT]

Ratios are of medians within one run, the two sides in turn, because machines are noisy; nothing here is a test.
"recipes" are runs of files of experiments/ with crops, flips, evaluations and saves. Their data is read from
TFDS_DATA_DIR; what is not there was not run. FOLDER has class folders of JPEGs, which are decoded anew for each batch;
what `jaxcnn bench-input` says of that run is told beside its ratio. Of a start the first step is the first line of
metrics.jsonl; "cold" has an empty compile cache, and CHECKOUT is a clone at an earlier commit whose cold starts are
timed in turn. What every part takes is told on stderr.
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
from collections.abc import Callable
from typing import Any

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
from jaxcnn.data.transforms import HorizontalFlip, Pad, PadAndCrop, RandomResizedCrop, Resize, Rotate, Transform
from jaxcnn.devices import keep_memory
from jaxcnn.errors import UserError
from jaxcnn.experiment import Checkpoints, Data, Experiment
from jaxcnn.experiment_file import load_function
from jaxcnn.models import FC
from jaxcnn.runs.bench_input import bench_input
from jaxcnn.runs.display import Display
from jaxcnn.runs.evaluation import compile_evaluation_step, evaluate, evaluation_batches, placed
from jaxcnn.runs.loop import run
from jaxcnn.runs.member import train_batches
from jaxcnn.runs.program import compile_train_step
from jaxcnn.runs.reader import Reader
from jaxcnn.runs.setup import Plan, make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.runs.stepper import stepper_for
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.optimizers import SGD
from jaxcnn.train.schedules import Constant

ROOT = pathlib.Path(__file__).parent.parent
INTERVAL = 25
CROPS = (Pad(2), PadAndCrop(2), HorizontalFlip())
# Its name: the file in experiments/, the data set, augmentation in place of the file's, how many steps are run, and how
# many of them in a call.
RECIPES: dict[str, tuple[str, str, tuple[Transform, ...] | None, int, int]] = {
    "LeNet-5, Fashion-MNIST, crops and flips": ("lenet_fashion_mnist", "fashion_mnist", CROPS, 400, 1),
    "LeNet-5, Fashion-MNIST, crops and flips, 25 steps a call": (
        "lenet_fashion_mnist",
        "fashion_mnist",
        CROPS,
        400,
        25,
    ),
    "ResNet-20, CIFAR-10 as JPEG": ("resnet_cifar10", "cifar10_jpeg", None, 160, 1),
    "VGG-A with batch norm, three stages, 0.375 as wide, Fashion-MNIST": (
        "vgg_fashion_mnist",
        "fashion_mnist",
        None,
        320,
        1,
    ),
}
# Its name: the file, and flags beside those that make it log its first step.
STARTS = {
    "LeNet-5 on digits": ("lenet_digits", ("--duration", "2000steps")),
    "EfficientNet-B0 at 224, made-up images, batch 1": ("efficientnet_imagenet", ("--debug", "--dtype", "float32")),
    "DenseNet-121 at 224, made-up images, batch 1": ("densenet_imagenet", ("--debug", "--dtype", "float32")),
}
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


def recipe(name: str) -> Experiment:
    """An experiment file's training, cut to some steps; at half of them and at the end few images are evaluated, and it
    is saved."""
    file, data_set, augment, length, steps_per_call = RECIPES[name]
    made = load_function(ROOT / "experiments" / f"{file}.py")()
    data = dataclasses.replace(
        made.data,
        source=Tfds(data_set),
        augment=made.data.augment if augment is None else augment,
        train_split="train[:99%]",
        evaluation_splits=("train[99%:]",),
        test_splits=(),
        workers=0,
    )
    every = steps(length // 2)
    return dataclasses.replace(
        made,
        data=data,
        duration=steps(length),
        steps_per_call=steps_per_call,
        schedule=Constant(),
        log_every=steps(length // 8),
        evaluate_every=every,
        checkpoints=dataclasses.replace(made.checkpoints, every=every),
    )


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


def bare_rates(plan: Plan, compiled: Callable[..., Any], count: int) -> list[float]:
    """Images per second of the compiled step, one a call, on one batch that stays on the device."""
    data = plan.experiment.data
    batch = train_batches(plan, plan.train, data.augment)[0]
    batch = placed(batch, plan.experiment, plan.mesh, evaluated=False)
    (state,) = stepper_for([plan]).create()
    rates = []
    for _ in range(count + 1):
        start = time.perf_counter()
        for _ in range(plan.log_every):
            state, metrics = compiled(state, {}, batch)
        jax.block_until_ready(metrics)
        rates.append(plan.log_every * data.batch_size / (time.perf_counter() - start))
    return rates[1:]


def compare_loop(made: Experiment, rounds: int) -> dict[str, float]:
    plan = in_memory(made)
    length = plan.total
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
    (state,) = stepper_for([plan]).create()
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


def seconds_to_first_step(file: str, flags: tuple[str, ...], cache: str, root: pathlib.Path = ROOT) -> float:
    """From the start of the process to the first logged step of an experiment file, of this checkout or another."""
    with tempfile.TemporaryDirectory() as folder:
        run_path = pathlib.Path(folder) / "run"
        command = [sys.executable, "-m", "jaxcnn.launch", root / "experiments" / f"{file}.py", "--workdir", run_path]
        command += ["--log-every", "1steps", *flags]
        start = time.perf_counter()
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "PYTHONPATH": str(root)}
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, env=environment, cwd=root, **silent)
        metrics = run_path / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode} before its first step")
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        process.kill()
        process.wait()
        return seconds


def start_up(name: str, rounds: int, before: pathlib.Path | None) -> dict[str, object]:
    """Medians, and each round's."""
    times: dict[str, list[float]] = {"cold, s": [], "with the compile cache, s": []}
    file, flags = STARTS[name]
    for _ in range(rounds):
        if before is not None:
            with tempfile.TemporaryDirectory() as cache:
                times.setdefault("cold, before, s", []).append(seconds_to_first_step(file, flags, cache, before))
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold, s", "with the compile cache, s"):
                times[state].append(seconds_to_first_step(file, flags, cache))
    medians: dict[str, object] = {state: statistics.median(seconds) for state, seconds in times.items()}
    return medians | {"rounds": times}


def command_seconds(arguments: tuple[str, ...], rounds: int) -> float:
    """From the start to the end of a `jaxcnn` command."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        command = [sys.executable, "-m", "jaxcnn", *arguments]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


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


def loops(rounds: int) -> dict[str, Callable[[], object]]:
    """Loops of nothing but steps."""
    parts: dict[str, Callable[[], object]] = {
        "LeNet-5, digits, rotated and shifted, batch 64": lambda: compare_loop(experiment("recipe", 200), rounds),
        "evaluation, LeNet-5, digits, batch 512": lambda: compare_evaluation("recipe", 10 * rounds),
        "VGG-A, 32 px, synthetic, batch 64": lambda: compare_loop(experiment("vgg", 16), rounds),
    }
    if os.environ.get("TFDS_DATA_DIR"):
        fashion = experiment("fashion", 200)
        together = dataclasses.replace(fashion, steps_per_call=INTERVAL)
        parts["LeNet-5, Fashion-MNIST, batch 128"] = lambda: compare_loop(fashion, rounds)
        parts[f"LeNet-5, Fashion-MNIST, batch 128, {INTERVAL} steps a call"] = lambda: compare_loop(together, rounds)
    return parts


def recipes(rounds: int) -> dict[str, Callable[[], object]]:
    """Loops of whole recipes."""

    def compare(name: str) -> object:
        try:
            return compare_loop(recipe(name), rounds)
        except UserError as error:
            return f"not run: {error}"

    return {name: functools.partial(compare, name) for name in RECIPES}


def photos(folder: str, rounds: int) -> dict[str, float | str]:
    compared = compare_loop(experiment("photos", 12, folder), rounds)
    found = bench_input(experiment("photos", 12, folder))
    return compared | {"expected of it, images/s": found.expected, "bottleneck": found.verdict()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["recipes", "loop", "photos", "start", "commands", "memory"])
    parser.add_argument("--photos")
    parser.add_argument("--before", type=pathlib.Path)
    arguments = parser.parse_args()
    keep_memory()  # as the front door does
    rounds = arguments.rounds
    groups: dict[str, dict[str, Callable[[], object]]] = {
        "recipes": recipes(rounds),
        "loop": loops(rounds),
        "start": {
            f"start to first step, {name}": functools.partial(start_up, name, rounds, arguments.before)
            for name in STARTS
        },
        "commands": {
            f"jaxcnn {name}, s": functools.partial(command_seconds, (name,), rounds) for name in ("--help", "models")
        },
        "memory": {"memory": memory_slope},
    }
    if arguments.photos:
        groups["photos"] = {
            "VGG-A, crops of 32 px of JPEGs, batch 16": functools.partial(photos, arguments.photos, rounds)
        }
    report: dict[str, object] = {"device": jax.devices()[0].device_kind, "cpus": os.cpu_count(), "jax": jax.__version__}
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)  # every round compiles the same programs
        for group, parts in groups.items():
            for name, part in parts.items() if arguments.only in (None, group) else ():
                start = time.perf_counter()
                report[name] = part()
                print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
