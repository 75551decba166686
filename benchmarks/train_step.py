"""The train step of whole nets in bfloat16 beside timm's with torch.compile and channels_last: images/s and memory.

    python -m benchmarks.train_step --out train_step.json [--models resnet50 ...] [--sides torch jaxcnn plain]
    python -m benchmarks.train_step --table train_step.json

For a GPU; needs the extra `parity`, with a PyTorch for that GPU. All sides get uint8 images that stay on the device,
normalise them, and take a whole step: forward, backward, SGD with momentum and weight decay. Each is a process of its
own. PyTorch's compile side by side; then every side is timed alone, jaxcnn's compiled alone before. Figures are medians
of three times 20 steps. "plain" is jaxcnn without the forms that it has for GPUs.

It ends by itself after `--seconds`, 570 by default, and what is measured is written at once: the same command, with the
same --out, goes on with what is missing. --debug tries everything at tiny sizes on a CPU, and stores nothing.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from jaxcnn import files

ROOT = pathlib.Path(__file__).resolve().parents[1]
NETS = {
    "resnet50": 256,
    "efficientnet_b0": 128,
    "vgg16": 128,
    "densenet121": 128,
    "resnet18": 256,
    "alexnet": 256,
    "googlenet_bn": 256,
    "inception_v3": 128,
    "resnext50_32x4d": 128,
    "se_resnet50": 128,
    "resnet152": 128,
    "efficientnet_b3": 128,
    "senet154": 64,
}
"""With their batches, in the order in which they are measured."""
IMAGE, INCEPTION = 224, 299
SIDES = ("torch", "jaxcnn", "plain")
# Dense bfloat16 operations a second, from NVIDIA's data sheets, by what the device calls itself.
PEAK = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "V100": 125e12}
HEAD = (
    "| net, batch | torch.compile, images/s | jaxcnn, images/s | ratio | share of peak | memory, MiB: theirs, ours | "
    "compilation, s: theirs, ours, with the cache |"
)


@dataclasses.dataclass
class Process:
    """One side of one net."""

    side: str
    name: str
    folder: pathlib.Path
    arguments: Sequence[object]

    def __post_init__(self) -> None:
        stem = self.folder / f"{self.side}-{self.name}"
        self.ready, self.go = stem.with_suffix(".ready"), stem.with_suffix(".go")
        self.out, self.errors = stem.with_suffix(".out"), stem.with_suffix(".err")
        *numbers, debug = map(str, self.arguments)
        command = [
            sys.executable,
            "-m",
            "benchmarks.train_step_sides",
            self.side,
            self.name,
            *numbers,
            self.ready,
            self.go,
            debug,
        ]
        with self.out.open("w") as out, self.errors.open("w") as errors:
            self.child = subprocess.Popen(command, stdout=out, stderr=errors, cwd=ROOT)
        self.start = time.monotonic()

    @property
    def compiling(self) -> bool:
        return not self.ready.exists() and self.child.poll() is None

    def wait_compiled(self, until: float) -> bool:
        """Whether it is compiled by then."""
        while self.compiling and time.monotonic() < until:
            time.sleep(0.1)
        return self.ready.exists()

    def result(self, until: float) -> dict[str, Any]:
        """Lets it go, and returns its figures, or why there are none."""
        waited = time.monotonic() - self.start
        if self.compiling:
            self.end()
            return {"failed": f"not compiled after {waited:.0f} s"}
        self.go.touch()
        try:
            code = self.child.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.end()
            return {"failed": "not timed in the time that was left"}
        if code:
            return {"failed": (self.errors.read_text().strip().splitlines() or [f"exit code {code}"])[-1][:300]}
        return json.loads(self.out.read_text().splitlines()[-1])

    def end(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


def measured_torch(
    names: Sequence[str],
    arguments: dict[str, Sequence[object]],
    until: float,
    side_by_side: int = 6,
    limit: float = 220,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(net, figures) of PyTorch's sides: they compile at once, so many side by side, then each is timed alone.

    Args:
      names: of the nets.
      arguments: of each net's process: batch, image, steps, rounds, "debug" or "".
      until: the end, by time.monotonic.
      side_by_side: so many compile at once.
      limit: seconds for all of them to compile.
    """
    compiled_by = min(until, time.monotonic() + limit)
    waiting, started = list(names), list[Process]()
    with tempfile.TemporaryDirectory() as folder:
        try:
            while time.monotonic() < compiled_by and (waiting or any(each.compiling for each in started)):
                if waiting and sum(each.compiling for each in started) < side_by_side:
                    name = waiting.pop(0)
                    started.append(Process("torch", name, pathlib.Path(folder), arguments[name]))
                time.sleep(0.1)
            # Those that still compile are ended first, and leave the others alone.
            for each in sorted(started, key=lambda each: not each.compiling):
                yield each.name, each.result(until)
        finally:
            for each in started:
                each.end()


def measured_jax(
    side: str, names: Sequence[str], arguments: dict[str, Sequence[object]], until: float, limit: float = 100
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(net, figures) of jaxcnn's sides, each compiled, in `limit` seconds, and timed alone."""
    for name in names:
        if time.monotonic() + 5 > until:
            return
        with tempfile.TemporaryDirectory() as folder:
            one = Process(side, name, pathlib.Path(folder), arguments[name])
            try:
                one.wait_compiled(min(until, time.monotonic() + limit))
                found = one.result(until)
            finally:
                one.end()
        yield name, found


def multiply_adds(name: str, image: int) -> int:
    """Of a forward pass of one image."""
    from jaxcnn import create_model
    from jaxcnn.summary.summary import summarize

    return summarize(create_model(name), (image, image, 3)).multiply_adds


def with_counts(result: dict[str, Any]) -> dict[str, Any]:
    """The same with what takes no GPU: the share of peak, and how far losses are from the plain forms'."""
    for name, row in result["nets"].items():
        if "images/s" not in row.get("jaxcnn", {}):
            continue
        row.setdefault("multiply-adds", multiply_adds(name, row["image"]))
        row["share of peak"] = share_of_peak(row)
        if "losses" in row.get("plain", {}):
            pairs = zip(row["jaxcnn"]["losses"], row["plain"]["losses"], strict=True)
            row["largest relative difference of a loss from plain"] = max(abs(a - b) / abs(b) for a, b in pairs)
    return result


def share_of_peak(row: dict[str, Any]) -> float | None:
    """Of jaxcnn's step, which multiplies three times as often as a forward pass; None where the peak is not known."""
    ours = row["jaxcnn"]
    peak = next((value for kind, value in PEAK.items() if kind in ours["device"]), None)
    return ours["images/s"] * 6 * row["multiply-adds"] / peak if peak else None


def table(result: dict[str, Any]) -> list[str]:
    """The rows of docs/speed.md; a side that failed says so, and one that was not run."""
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for name, row in result["nets"].items():
        sides = [row.get(side, {"failed": "not run"}) for side in ("torch", "jaxcnn")]
        rates = [f"{side['images/s']:,.0f}" if "images/s" in side else side["failed"] for side in sides]
        ratio = share = "-"
        if "images/s" in sides[1]:
            share = "-" if row["share of peak"] is None else f"{row['share of peak']:.2f}"
            ratio = f"{sides[1]['images/s'] / sides[0]['images/s']:.2f}" if "images/s" in sides[0] else "-"
        columns = {
            "memory": [_number(side.get("memory, MiB")) for side in sides],
            "compilation": [
                *(_number(side.get("compilation, s")) for side in sides),
                _number(sides[1].get("compilation with the cache, s")),
            ],
        }
        parts = [f"{name}, {row['batch']}", *rates, ratio, share, *(", ".join(each) for each in columns.values())]
        lines.append("| " + " | ".join(parts) + " |")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--sides", nargs="+", default=["torch", "jaxcnn"], choices=SIDES)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=570)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--table", type=pathlib.Path, help="count what is missing in it, and print the rows")
    parser.add_argument("--debug", action="store_true")
    given = parser.parse_args()
    until = time.monotonic() + given.seconds
    if given.table:
        result = with_counts(json.loads(given.table.read_text()))
        files.write_json(given.table, result)
        print("\n".join(table(result)))
        return
    if given.debug and given.out:
        parser.error("--debug measures nothing that is worth an --out")
    result: dict[str, Any] = {"what": "a whole train step in bfloat16; medians", "nets": {}}
    if given.out and given.out.exists():
        result = json.loads(given.out.read_text())
    arguments = {}
    for name in given.models:
        image = INCEPTION if name == "inception_v3" else IMAGE
        batch, steps, rounds = (2, 1, 1) if given.debug else (NETS[name], given.steps, given.rounds)
        image = min(image, 96) if given.debug else image
        arguments[name] = (batch, image, steps, rounds, "debug" if given.debug else "")
        result["nets"].setdefault(name, {"batch": batch, "image": image})
    for side in [side for side in SIDES if side in given.sides]:
        missing = [name for name in given.models if "images/s" not in result["nets"][name].get(side, {})]
        come = (
            measured_torch(missing, arguments, until)
            if side == "torch"
            else measured_jax(side, missing, arguments, until)
        )
        for name, found in come:
            result["nets"][name][side] = found
            shown = {key: value for key, value in found.items() if key in ("images/s", "failed", "compilation, s")}
            print(json.dumps({"model": name, "side": side, **shown}), flush=True)
            if given.out:
                files.write_json(given.out, result)


if __name__ == "__main__":
    main()
