"""Quarantine: the examples that a run has passed over, counted over all of its processes."""

import json
from collections.abc import Callable

import jax

from jaxcnn.data.examples import BrokenExample
from jaxcnn.errors import UserError
from jaxcnn.files import to_json
from jaxcnn.runs.consensus import Consensus
from jaxcnn.runs.run_directory import RunDirectory


class Quarantine:
    """What could not be used, and whether that is more than the experiment tolerates.

    Each process meets the broken examples of its own rows. What one has found it tells the others as soon as all are at
    one point (`news` is voted on), so that all count the same and stop together.

    Args:
      directory: where each example is kept, once.
      consensus: of the processes.
      tolerated: how many may be passed over.
      say: shows a line.
    """

    def __init__(self, directory: RunDirectory, consensus: Consensus, tolerated: int, say: Callable[[str], None]):
        self.directory, self.consensus, self.tolerated, self.say = directory, consensus, tolerated, say
        self._untold: list[dict[str, str | int]] = []

    @property
    def news(self) -> bool:
        """Whether the other processes do not know all of this one's yet."""
        return bool(self._untold)

    def add(self, split: str, broken: list[BrokenExample]) -> None:
        """Records examples of this process. Raises UserError as `share`, with several processes only there."""
        for example in broken:
            line = {"split": split, "index": example.index, "where": example.where, "cause": example.cause}
            if self._record(line):
                self._untold.append(line)
        if jax.process_count() == 1:
            self.share()

    def share(self) -> None:
        """Tells all processes what each has found; all must be at this point of the run.

        Raises:
          UserError: on all processes, if there are more than is tolerated.
        """
        if jax.process_count() > 1:
            for text in self.consensus.all_gather(to_json(self._untold)):
                for line in json.loads(text):
                    self._record(line)
        self._untold = []
        count = len(self.directory.quarantined)
        if count > self.tolerated:
            raise UserError(
                f"{count} images cannot be used and data.tolerate_broken is {self.tolerated}; "
                f"they are listed in {self.directory.path / 'quarantine.jsonl'}; repair them and remove this file, "
                "or start a run that tolerates more"
            )

    def _record(self, line: dict) -> bool:
        new = self.directory.quarantine(**line)
        if new:
            self.say(f"warning: passed over {line['where']}: {line['cause']}")
        return new
