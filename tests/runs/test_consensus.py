"""The vote on the devices of this process; tests/cluster/test_processes.py has those of several."""

from jaxcnn.runs.consensus import Consensus, Vote
from jaxcnn.train import mesh as meshes


def test_every_vote_is_counted_as_it_was_cast_however_often():
    consensus = Consensus(meshes.make_mesh(), lambda: False)
    votes = [Vote.GO, Vote.STOP, Vote.GO, Vote.NEWS, True, False, Vote.STOP]
    assert [int(consensus._cast(vote)) for vote in votes] == [0, 2, 0, 1, 1, 0, 2]
