"""Kills one of several processes around its saves, again and again, and goes on: what the others say, what comes out.

python -m tests.cluster.kills --processes 2 --kills 20 prints a line per kill; exit code 1 if one of them is wrong.
"""

import argparse
import dataclasses
import pathlib
import re
import tempfile

from tests.cluster.killed import MOMENTS
from tests.cluster.several import ended, free_port, start_all
from tests.tiny_runs import TINY, assert_same_run, read, start

EVERY = 2
"""Steps between two saves."""


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill: of which process, when, and at which step's save; how the others ended."""

    victim: int
    moment: str
    step: int
    survivors: tuple[tuple[int, str], ...]
    """(exit code, last line of stderr) of each."""
    status: str
    """The message in status.json."""

    def wrong(self) -> str:
        """What is not as it should be, or "": all others end with 69, all name the one that was killed."""
        name = rf"process {self.victim} \(\S+\) is lost"
        for code, line in self.survivors:
            if code != 69 or not re.search(name, line):
                return f"exit code {code}: {line}"
        return "" if re.search(name, self.status) else f"status.json: {self.status}"


def flags(run: pathlib.Path, kills: int, deadline: float) -> list:
    """The saves at EVERY, 2 EVERY, ... are more than the kills."""
    more = ["--checkpoints.every", f"{EVERY}steps", "--lost-after", deadline]
    return ["--workdir", run, "--duration", f"{EVERY * (kills + 2)}steps", "--log-every", "4steps", *more]


def kill_at(moment: str, step: int, victim: int, processes: int, arguments: list, run: pathlib.Path) -> Kill:
    """Starts the processes of a run, one of which kills itself at the save of `step`, and waits for the others."""
    place = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", processes, "--process"]
    started = []
    for index in range(processes):
        words = [TINY, *arguments, *place, index]
        if index == victim:
            started.append(start(moment, step, *words, module="tests.cluster.killed"))
        else:
            started.append(start(*words))
    results = ended(started, 300)
    assert results[victim][0] == -9, results[victim]
    survivors = tuple(
        (code, (errors.strip() or out.strip() or "nothing").splitlines()[-1])
        for index, (code, out, errors) in enumerate(results)
        if index != victim
    )
    return Kill(victim, moment, step, survivors, read(run, "status.json").get("message", ""))


def kill_around_saves(processes: int, kills: int, run: pathlib.Path, deadline: float) -> list[Kill]:
    """Kills at one save after another in one run, and ends it; the victims take turns, and so do the moments."""
    done = []
    common = flags(run, kills, deadline)
    for k in range(kills):
        victim, moment = k % processes, MOMENTS[(k // processes + k) % len(MOMENTS)]
        done.append(kill_at(moment, EVERY * (k + 1), victim, processes, common, run))
        print(f"{k + 1}: process {victim} {moment} the save of step {EVERY * (k + 1)}: ", end="")
        print(done[-1].wrong() or "named", flush=True)
    finish_all(processes, common)
    return done


def finish_all(processes: int, arguments: list) -> None:
    """The same run to its end."""
    for code, out, errors in ended(start_all(processes, *arguments), 300):
        assert code == 0, out + errors


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--lost-after", type=float, default=8)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, reference = pathlib.Path(folder, "run"), pathlib.Path(folder, "reference")
        finish_all(chosen.processes, flags(reference, chosen.kills, chosen.lost_after))
        kills = kill_around_saves(chosen.processes, chosen.kills, run, chosen.lost_after)
        wrong = [kill for kill in kills if kill.wrong()]
        print(f"{chosen.processes} processes: {len(kills) - len(wrong)} of {len(kills)} kills: 69 and the name")
        assert_same_run(run, reference)
        print("and the result is that of the undisturbed run to the bit")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
