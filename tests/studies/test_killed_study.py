"""A study that is killed, or asked to stop, at ten random moments makes the page that it would have made."""

import json
import os
import random
import re
import signal

from tests.tiny_runs import ROOT, finish, read, start, wait_until

FILE = ROOT / "tests" / "experiments" / "paired.py"
KILLS = 10


def files(study):
    """Path.rglob fails for a folder that is renamed meanwhile, as checkpoints are; os.walk does not."""
    return sum(len(names) for _, _, names in os.walk(study))


def page(study):
    """study.html without the time of the first start, speeds and the ids that matplotlib draws."""
    text = (study / "study.html").read_text()
    text, dates = re.subn(r"<td class=\"left\">\d{4}-\d\d-\d\d \d\d:\d\d UTC", "DATE", text)
    text, speeds = re.subn(r'(data-name="images per second">)[^<]*', r"\1SPEED", text)
    assert (dates, speeds) == (1, 2)
    ids = dict.fromkeys(re.findall(r'id="(\w+)"', text))
    return re.sub(r"(?<=[\"#])(" + "|".join(ids) + r")(?=[\")])", "ID", text)


def results(study):
    """study.json without speeds and the time of the first start."""
    found = read(study, "study.json")
    for arm in found["arms"].values():
        for figures in (arm["figures"], *(cell["figures"] for cell in arm["cells"])):
            del figures["images per second"]
    del found["pinned"]["date"]
    return found


def finished_cells(study):
    """{cell: when its result was written}. A cell killed between its result and "done" has yet to say so, and is
    evaluated once more."""
    cells = [file.parent for file in study.glob("cells/*/*/status.json")]
    return {
        cell: (cell / "result.json").stat().st_mtime_ns
        for cell in cells
        if json.loads((cell / "status.json").read_bytes())["state"] == "done"
    }


def test_killed_at_ten_random_moments_it_makes_the_same_page(tmp_path):
    """A moment is a number of files that are there: what is killed has just written one, or is about to."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(FILE, "--workdir", whole)
    draw = random.Random(14)
    moments = sorted(draw.randrange(1, files(whole) - 5) for _ in range(KILLS))
    finished: dict = {}
    counts = []
    for moment in moments:
        process = start(FILE, "--workdir", killed)
        wait_until(lambda moment=moment: killed.exists() and files(killed) >= moment, process)
        number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        process.send_signal(number)
        process.communicate(timeout=120)
        # -SIGTERM: it came before anything was done; 0: a busy machine saw the last moments after the end
        assert process.returncode in (75, -number, 0)
        after = finished_cells(killed)
        assert finished.items() <= after.items()  # no finished cell is run twice
        finished = after
        counts.append(len(finished))
    assert len(set(counts)) >= 3  # of moments, spread over the cells
    finish(FILE, "--workdir", killed)
    assert results(killed) == results(whole)
    assert page(killed) == page(whole)
