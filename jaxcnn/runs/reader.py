"""Reader: the batches of a run, from threads or from worker processes that start once."""

import contextlib
import errno
import itertools
from collections.abc import Callable, Generator

from jaxcnn.data.pipeline import Batch, EvaluationBatches, Rounds, TrainBatches, iterate
from jaxcnn.errors import UserError


class Reader:
    """Reads batches for one start of a run. Close it at the end: that ends the worker processes.

    Args:
      workers: how many processes read each split; 0: threads do.
      stopping: whether this process was told to stop.
    """

    def __init__(self, workers: int, stopping: Callable[[], bool] = lambda: False):
        self.workers, self.stopping = workers, stopping
        self._kept: dict[str, Generator[Batch, None, None]] = {}
        self._open = contextlib.ExitStack()

    def close(self) -> None:
        self._open.close()

    def training(self, batches: TrainBatches, start: int) -> Generator[Batch, None, None]:
        """The batches from step `start` on, without an end."""
        return self._until_closed(batches, start)

    def first(self, batches: TrainBatches, count: int) -> Generator[Batch, None, None]:
        """The first so many training batches of the run, to be taken to their end."""
        with contextlib.closing(self._batches(batches, 0)) as stream:
            yield from itertools.islice(stream, count)

    def evaluation(self, split: str, batches: EvaluationBatches) -> Generator[Batch, None, None]:
        """The batches of one evaluation, to be taken to their end.

        Worker processes start at the first evaluation of a split and stay for the next: their start takes seconds.
        """
        if not self.workers or batches.resident:
            with contextlib.closing(self._batches(batches, 0)) as stream:
                yield from stream
            return
        if split not in self._kept:
            self._kept[split] = self._until_closed(Rounds(batches), 0)
        yield from itertools.islice(self._kept[split], len(batches))

    def _until_closed(self, batches: TrainBatches | Rounds, start: int) -> Generator[Batch, None, None]:
        return self._open.enter_context(contextlib.closing(self._batches(batches, start)))

    def _batches(self, batches: TrainBatches | EvaluationBatches | Rounds, start: int) -> Generator[Batch, None, None]:
        while True:
            with contextlib.closing(iterate(batches, start, workers=self.workers)) as iterator:
                try:
                    for batch in iterator:
                        start += 1
                        yield batch
                    return
                except (OSError, AssertionError) as error:
                    # multiprocessing asserts where it ends a process that it could not start.
                    refused = _of_the_system(error)
                    if refused is None or not self.workers:
                        raise
                    raise UserError(
                        f"{self.workers} worker processes cannot be started: {refused.strerror}; raise the limit "
                        "(ulimit -n for open files, -u for processes), or take fewer --data.workers"
                    ) from error
                except RuntimeError:
                    # The signal that stops the run may end a worker that is starting. Then this process goes on all
                    # the same, to where all stop together.
                    if not self.stopping():
                        raise


def _of_the_system(error: BaseException | None) -> OSError | None:
    """The refusal of files, processes or memory from which an error came, if it came from one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):
            return error
        error = error.__cause__ or error.__context__
    return None
