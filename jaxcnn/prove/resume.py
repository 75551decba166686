"""Proof of resume: interrupt an experiment at random moments of every phase, go on, and compare with a whole run.

After an interruption and the same command again, on the same devices, the hash of the result, of the metrics (times
aside) and of every array of the final checkpoint must be that of the uninterrupted run, and every step must have read
the same examples in the same order. On another number of devices or processes the metrics agree to rounding.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxcnn.errors import UserError
from jaxcnn.prove.interrupted import Interruption
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.run_directory import RunDirectory, open_run
from jaxcnn.text import print_plain

PHASES = ("start", "compile", "step", "evaluation", "save", "end")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
TIMES = ("examples_per_second", "data_wait")
TOLERANCE = 1e-5
"""Of metrics after a change of devices: sums of float32 in another order."""


@dataclasses.dataclass(frozen=True)
class Proof:
    """One interruption and what came of it."""

    phase: str
    signal: str
    moment: str
    codes: tuple[int, ...]
    """Exit codes: of the interrupted process, and of the one that went on."""
    resumed: str
    """Devices or processes before and after."""
    problem: str
    """"" where all is equal."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a finished run left."""

    result: dict[str, dict[str, float]]
    metrics: list[dict[str, Any]]
    state: str
    """sha256 of every array of the final checkpoint, by path."""
    examples: dict[str, list[int]]
    """The examples of each step in the order of the global batch: {"step 1": ...}; of a study by its cells."""

    def hash(self) -> str:
        """Of result, metrics, final checkpoint and batches."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def batches(self) -> str:
        """Hash of the example indices of all steps."""
        return hashlib.sha256(json.dumps(sorted(self.examples.items())).encode()).hexdigest()[:16]


def expected_codes(phase: str, number: signal.Signals, behind: bool, done: bool) -> set[int]:
    """Exit codes that a process may end with after a signal.

    Args:
      phase: one of PHASES, in which the signal came.
      number: the signal.
      behind: whether it came when no step was left to be stopped.
      done: whether the run is done all the same.
    """
    if number == signal.SIGKILL:
        return {-int(number)}
    # Before its handlers are there a process ends by the signal; after that it has saved, and says 75.
    expected = {-int(number), 75}
    # Of a signal from outside in the start it is not known what came after it. A process that takes more steps after a
    # signal, and goes on to its end, has ignored it.
    if done and (phase == "start" or behind):
        expected.add(0)
    if number == signal.SIGINT:
        expected |= {1, 130}  # Python's own KeyboardInterrupt, while it imports
    return expected


def is_behind(journal: Sequence[dict[str, Any]]) -> bool:
    """Whether the signal that a journal notes came behind the last step, or in it: a phase can be shorter than in the
    undisturbed run, by which the moment was drawn."""
    signals = [i for i, event in enumerate(journal) if "signal" in event]
    after = journal[signals[-1] :] if signals else journal
    return bool(signals) and sum(event.get("phase") == "step" for event in after) <= 1


class Prover:
    """Runs one experiment many times in `folder`."""

    def __init__(self, file: pathlib.Path, flags: Sequence[str], folder: pathlib.Path, seed: int, console: Console):
        # A page takes longer than a short run, and is no part of what must be equal.
        own = [] if _is_study(file) else ["--no-report"]
        self.file, self.flags, self.folder, self.console = file, [*flags, *own], folder, console
        self.draw = random.Random(seed)
        self.seconds: dict[str, list[float]] = {}
        self.starts = 0
        self.whole: Ended
        """Of the undisturbed run, once `reference` has made it."""

    def reference(self, devices: int) -> Ended:
        """The uninterrupted run; from its journal the lengths of the phases are known."""
        path = self.folder / "whole"
        start = time.monotonic()
        code, text = self._wait(self._start(path, devices))
        if code != 0:
            raise UserError(f"the uninterrupted run ended with exit code {code}:\n{text[-2000:]}")
        took = time.monotonic() - start
        for event in _journal(path):
            if "phase" in event:
                self.seconds.setdefault(event["phase"], []).append(event["seconds"])
        inside = sum(sum(each) for name, each in self.seconds.items() if name != "end")
        self.seconds["start"] = [max(1.0, took - inside)]
        self.whole = _read(path)
        return self.whole

    def interrupt(self, number: int, devices: int, others: Sequence[int]) -> Proof:
        """One interruption in the phase whose turn it is, and its resume; every fourth on another number of devices."""
        phase = PHASES[number % len(PHASES)]
        chosen = self.draw.choice(SIGNALS)
        turn = number + number // len(PHASES)  # so that every phase has its turn on other devices
        then = self.draw.choice(others) if others and turn % 4 == 3 else devices
        for attempt in range(20):
            path = self.folder / f"{number}_{attempt}"
            calls = self.seconds.get(phase, [1.0])
            call = self.draw.randrange(len(calls))
            delay = self.draw.random() * (max(calls[call], 0.5) if phase == "end" else calls[call])
            where = phase if phase != "start" else None
            process = self._start(path, devices, phase=where, call=call, delay=delay, signal=int(chosen))
            if phase == "start":
                time.sleep(delay)
                process.send_signal(chosen)
            code, text = self._wait(process)
            if code != 0 or f"{chosen.name}: saving" in text:
                break
            shutil.rmtree(path)  # it was over before the signal came
        else:
            return Proof(phase, chosen.name, "", (0,), "", "20 times over before the signal came")
        moment = f"{phase if phase == 'start' else f'{phase} {call + 1}'} + {1000 * delay:,.0f} ms"
        statuses = [RunDirectory(run).status() for run in _runs(path)]
        done = bool(statuses) and all(status.get("state") == "done" for status in statuses)
        expected = expected_codes(phase, chosen, is_behind(_journal(path)), done)
        problem = "" if code in expected else f"exit code {code}: {text.strip()[-300:]}"
        saved = min((status.get("step", 0) for status in statuses), default=0)
        again, text = self._wait(self._start(path, then))
        if not problem:
            problem = (
                f"did not go on, exit code {again}: {text.strip()[-300:]}"
                if again
                else self._compare(path, then == devices)
            )
        if not problem:
            shutil.rmtree(path)
        changed = f"{devices} -> {then} devices" if then != devices else f"{devices}"
        return Proof(phase, chosen.name, f"{moment}, saved {saved}", (code, again), changed, problem)

    def resize(self, sizes: Sequence[int], times: int) -> list[Proof]:
        """One run, stopped by a signal to one process `times` times and gone on with the next number of processes."""
        path = self.folder / "resized"
        total = len(self.whole.examples)
        proofs = []
        size, processes = sizes[0], []
        for turn in range(times + 1):
            size = sizes[turn % len(sizes)]
            target = total * (turn + 1) // (times + 1)
            processes = self._start_all(path, size)
            if turn == times:
                break
            while _steps(path) < target and all(process.poll() is None for process in processes):
                time.sleep(0.01)
            victim = self.draw.randrange(size)
            processes[victim].send_signal(signal.SIGTERM)
            codes = tuple(code for code, _ in map(self._wait, processes))
            problem = "" if set(codes) <= {75} else f"exit codes {codes}"
            moment = f"step {RunDirectory(path).status().get('step')}, to process {victim}"
            proofs.append(
                Proof(
                    "step", "SIGTERM", moment, codes, f"{size} -> {sizes[(turn + 1) % len(sizes)]} processes", problem
                )
            )
            print_plain(self.console, _line(proofs[-1]))
        ends = list(map(self._wait, processes))
        problem = self._compare(path, False) if all(code == 0 for code, _ in ends) else f"did not end well: {ends}"
        proofs.append(Proof("end", "", "", tuple(code for code, _ in ends), f"{size} processes", problem))
        verdict = problem or "the same batches, equal metrics"
        print_plain(self.console, f"the run at its end, on {size} processes: {verdict}")
        return proofs

    def _compare(self, path: pathlib.Path, exact: bool) -> str:
        """ "" or what differs from the uninterrupted run."""
        run, whole = _read(path), self.whole
        if run.examples != whole.examples:
            steps = [step for step in whole.examples if run.examples.get(step) != whole.examples[step]]
            return f"other examples at {steps[0] if steps else 'a step more'}"
        if exact:
            if run.hash() == whole.hash():
                return ""
            parts = [name for name in ("result", "metrics", "state") if getattr(run, name) != getattr(whole, name)]
            return f"other {' and '.join(parts)}"
        logged = [[(line["step"], line["split"]) for line in each.metrics] for each in (run, whole)]
        if logged[0] != logged[1]:
            return "other lines in metrics.jsonl"
        for ours, theirs in zip(run.metrics, whole.metrics, strict=True):
            for name, value in theirs.items():
                if isinstance(value, float) and not np.isclose(ours[name], value, rtol=TOLERANCE, atol=TOLERANCE):
                    return f"{name} of step {ours['step']} ({ours['split']}) is {ours[name]!r} and was {value!r}"
        return ""

    def _start(
        self, path: pathlib.Path, devices: int, process_flags: Sequence[str] = (), **interruption: Any
    ) -> subprocess.Popen:
        planned = Interruption(f"{path}.journal", self.starts, **interruption)
        if not process_flags:
            self.starts += 1
        command = [sys.executable, "-m", "jaxcnn.prove.interrupted", json.dumps(dataclasses.asdict(planned))]
        flags = [*self.flags, "--workdir", str(path), *process_flags]
        with pathlib.Path(f"{path}.output").open("ab") as output:
            return subprocess.Popen(
                [*command, str(self.file), *flags], env=_environment(devices), stdout=output, stderr=subprocess.STDOUT
            )

    def _start_all(self, path: pathlib.Path, size: int) -> list[subprocess.Popen]:
        self.starts += 1
        if size == 1:
            return [self._start(path, 1, ["--processes", "1"])]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            process_flags = ["--coordinator", f"127.0.0.1:{probe.getsockname()[1]}", "--processes", str(size)]
        return [self._start(path, 1, [*process_flags, "--process", str(index)]) for index in range(size)]

    def _wait(self, process: subprocess.Popen) -> tuple[int, str]:
        """The exit code, and the end of what was written."""
        code = process.wait()
        arguments = cast(list[str], process.args)
        path = arguments[arguments.index("--workdir") + 1]
        return code, pathlib.Path(f"{path}.output").read_text(errors="replace")


def prove_resume(
    file: pathlib.Path,
    flags: Sequence[str],
    folder: pathlib.Path,
    *,
    kills: int,
    resizes: int = 0,
    devices: Sequence[int] = (1, 2),
    sizes: Sequence[int] = (4, 2, 1),
    seed: int = 0,
) -> list[Proof]:
    """Interrupts the experiment `kills` times and resizes it `resizes` times; prints as it goes, and a table.

    Args:
      file: the experiment file, or that of a study, whose seeds can train as one program (--vmap-seeds yes).
      flags: for it, such as --debug.
      folder: where the runs are made; it must be empty or not exist.
      kills: interruptions, each of a fresh run, the phases in turn.
      resizes: changes of the number of processes of one run.
      devices: the first is what runs use; every fourth resume takes one of the others. CPU devices are made up.
      sizes: numbers of processes, in turn.
      seed: of the random moments.

    Raises:
      UserError: the folder is not empty, the uninterrupted run fails, or it has too few steps to be resized so often.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; choose another --workdir")
    folder.mkdir(parents=True, exist_ok=True)
    # Checkpoints are read here; the accelerator belongs to the runs.
    jax.config.update("jax_platforms", "cpu")
    console = Console()
    prover = Prover(file, flags, folder, seed, console)
    whole = prover.reference(devices[0])
    lengths = ", ".join(f"{name} {1000 * np.median(each):,.0f} ms" for name, each in sorted(prover.seconds.items()))
    print_plain(console, f"uninterrupted run: hash {whole.hash()}, batches {whole.batches()}; {lengths}")
    if resizes >= len(whole.examples):
        raise UserError(
            f"{file} takes {len(whole.examples)} steps with these flags, too few for {resizes} changes of the number "
            "of processes, each after another step; make it longer (--duration) or take fewer --resizes"
        )
    proofs = []
    for number in range(kills):
        proofs.append(prover.interrupt(number, devices[0], devices[1:]))
        print_plain(console, f"{number + 1}/{kills} {_line(proofs[-1])}")
    if resizes:
        proofs += prover.resize(sizes, resizes)
    return proofs


def proof_table(proofs: Sequence[Proof]) -> Table:
    """A row per phase: interruptions, and how many resumed equal."""
    table = Table("phase", "interrupted", "by SIGKILL", "other devices", "equal", "verdict")
    for phase in [*PHASES, "all"]:
        chosen = [proof for proof in proofs if phase in (proof.phase, "all")]
        if not chosen:
            continue
        equal = sum(not proof.problem for proof in chosen)
        killed = sum(proof.signal == "SIGKILL" for proof in chosen)
        changed = sum("->" in proof.resumed for proof in chosen)
        verdict = "pass" if equal == len(chosen) else "FAIL"
        table.add_row(phase, *map(str, (len(chosen), killed, changed, equal)), verdict, end_section=phase == PHASES[-1])
    return table


def _line(proof: Proof) -> str:
    verdict = f"FAIL: {proof.problem}" if proof.problem else "equal"
    return f"{proof.signal} in {proof.moment}; resumed on {proof.resumed}: {verdict}"


def _environment(devices: int) -> dict[str, str]:
    """The environment of a run on so many devices: the first GPUs, or CPU devices that XLA makes up."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    flags = [flag for flag in flags if "host_platform_device_count" not in flag]
    changed = {"XLA_FLAGS": " ".join([*flags, f"--xla_force_host_platform_device_count={devices}"])}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(devices)))).split(",")
    return os.environ | changed | {"CUDA_VISIBLE_DEVICES": ",".join(visible[:devices])}


def _is_study(file: pathlib.Path) -> bool:
    return file.is_file() and "\ndef study(" in file.read_text(errors="replace")


def _runs(path: pathlib.Path) -> list[pathlib.Path]:
    """The run directories of a start: its own, or those of a study's cells, after those that tune them."""
    if (path / "config.json").exists():
        return [path]
    return [*sorted(path.glob("tuning/*/*/*")), *sorted(path.glob("cells/*/*"))]


def _read(path: pathlib.Path) -> Ended:
    """What a run left, or the runs of a study's cells, one after another."""
    results, metrics, digest = {}, [], hashlib.sha256()
    for run in _runs(path):
        directory, name = open_run(run), "" if run == path else f"{run.relative_to(path)} "
        results |= {f"{name}{split}": each for split, each in directory.result().items()}
        lines = directory.metrics()
        metrics += [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
        leaves, _ = jax.tree_util.tree_flatten_with_path(load_run(run).state)
        for key, leaf in leaves:
            is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
            digest.update(f"{jax.tree_util.keystr(key)} {array.dtype} {array.shape}".encode() + array.tobytes())
    return Ended(results, metrics, digest.hexdigest(), _examples(path))


def _journal(path: pathlib.Path, process: int = 0) -> list[dict[str, Any]]:
    file = pathlib.Path(f"{path}.journal.{process}")
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _steps(path: pathlib.Path) -> int:
    return max((event["step"] + 1 for event in _journal(path) if "step" in event), default=0)


def _examples(path: pathlib.Path) -> dict[str, list[int]]:
    """The examples of each step: those of every start that ran it, one after another where they are not the same."""
    parts: dict[tuple[str, int], dict[int, dict[int, list[int]]]] = {}
    count: dict[int, int] = {}
    for process in range(len(list(path.parent.glob(f"{path.name}.journal.*")))):
        for event in _journal(path, process):
            if "step" in event:
                count[event["start"]] = event["processes"]
                key = os.path.relpath(event["run"], path.absolute()), event["step"]
                parts.setdefault(key, {}).setdefault(event["start"], {})[process] = event["examples"]
    examples = {}
    for (run, step), starts in sorted(parts.items()):
        # A start that was killed in this step may have noted it on some of its processes only.
        whole = [
            [index for _, rows in sorted(part.items()) for index in rows]
            for start, part in starts.items()
            if len(part) == count[start]
        ]
        distinct = [batch for i, batch in enumerate(whole) if batch not in whole[:i]]
        name = f"step {step + 1}" if run == "." else f"{run}, step {step + 1}"
        examples[name] = [index for batch in distinct for index in batch]
    return examples
