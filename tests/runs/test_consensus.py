"""The vote on the devices of this process; tests/cluster/test_processes.py has those of several."""

import json

from jaxcnn.runs.consensus import Consensus, Vote
from jaxcnn.train import mesh as meshes
from tests.tiny_runs import ROOT


def test_every_vote_is_counted_as_it_was_cast_however_often():
    consensus = Consensus(meshes.make_mesh(), lambda: False)
    votes = [Vote.GO, Vote.STOP, Vote.GO, Vote.NEWS, True, False, Vote.STOP]
    assert [int(consensus._all_reduce_max(vote)) for vote in votes] == [0, 2, 0, 1, 1, 0, 2]


def test_the_costs_on_the_page_are_those_of_the_stored_benchmark():
    stored = json.loads((ROOT / "docs" / "results" / "vote.json").read_text())
    page = (ROOT / "docs" / "clusters.md").read_text()
    nets = {name: found for name, found in stored.items() if isinstance(found, dict)}
    assert len(nets) == 2
    for name, found in nets.items():
        cells = [f"{found[f'{side}, clock, ms a step']:.1f}" for side in ("without", "vote")]
        for key in ("vote over without, clock", "vote over without, CPU", "sync point over without, clock"):
            low, high = found[key]["quartiles"]
            cells.append(f"{found[key]['median']:.2f} ({low:.2f} to {high:.2f})")
        assert f"| {name} | {' | '.join(cells)} |" in page
    before, after = stored["load average before and after"]
    assert f"load average {before:.1f} before, {after:.1f} after" in page
