"""What keeping a step's memory gives on a CPU (keep_memory in devices.py), and malloc's own settings in its place.

    python -m benchmarks.kept_memory [--nets lenet5 ...] [--rounds 3] [--seconds 3] [--out F]

The train step of nets of train_step_cpu.py: images/s, and the seconds that its compilation takes, with an empty cache.
Each measurement is a process of its own, the settings in turn, round by round; figures are medians, written as they
come. On Linux with glibc; "huge pages" also want /sys/kernel/mm/transparent_hugepage/enabled at "madvise" or "always".
"""

import argparse
import os
import pathlib
import statistics
import tempfile
from typing import Any
from unittest import mock

from benchmarks.train_step_cpu import NETS, measured
from jaxcnn import files

KEPT = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000"
SETTINGS = {
    "keep_memory": {},
    "one pool": {"GLIBC_TUNABLES": f"glibc.malloc.arena_max=1:{KEPT}"},
    "malloc as it is": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
    "huge pages": {"GLIBC_TUNABLES": f"glibc.malloc.hugetlb=1:{KEPT}"},
}
FIGURES = ("images/s", "compilation, s")


def row(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """{setting: medians over the rounds, and all of them}; {"failed": why} of one that came to none."""
    found: dict[str, Any] = {}
    for setting, each in rounds.items():
        failed = [one["failed"] for one in each if "failed" in one]
        found[setting] = {"failed": failed[0]} if failed else {}
        for figure in () if failed else FIGURES:
            values = [one[figure] for one in each]
            found[setting] |= {figure: statistics.median(values), f"{figure}, all rounds": values}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=[*NETS], default=["lenet5", "resnet20", "resnet18_64", "vgg16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("kept_memory.json"))
    arguments = parser.parse_args()
    pages = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    report: dict[str, Any] = {
        "cpus": len(os.sched_getaffinity(0)),
        "transparent huge pages": pages.read_text().strip() if pages.exists() else "unknown",
        "settings": SETTINGS,
        "nets": {},
    }
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        name: {each: [] for each in SETTINGS} for name in arguments.nets
    }
    for number in range(arguments.rounds):
        for name in arguments.nets:
            for setting, variables in SETTINGS.items():
                with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, variables):
                    found[name][setting].append(measured("jaxcnn", name, arguments.seconds, False, cache))
            report["nets"][name] = row(found[name])
            files.write_json(arguments.out, report)
            print(f"round {number + 1}, {name}: {report['nets'][name]}", flush=True)


if __name__ == "__main__":
    main()
