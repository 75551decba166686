"""python -m tests.cluster.killed MOMENT STEP FILE [flags]: the front door in a process that kills itself at a save.

With SIGKILL, so nothing is told to anybody: to the others it is as if the machine were gone.
"""

import os
import random
import signal
import sys
import threading

from jaxcnn.launch import main
from jaxcnn.runs import checkpoint

MOMENTS = ("before", "inside", "behind", "after")
"""Before the call that saves, some milliseconds into it, when it has returned and threads still write, when the
checkpoint is committed.
"""


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_around(moment: str, wanted: int) -> None:
    save, wait = checkpoint.save, checkpoint.wait

    def saving(manager, step, *arguments, **options):
        if step != wanted:
            return save(manager, step, *arguments, **options)
        if moment == "before":
            kill()
        if moment == "inside":
            timer = threading.Timer(random.Random(wanted).random() * 0.05, kill)
            timer.daemon = True
            timer.start()
        save(manager, step, *arguments, **options)
        if moment == "after":
            wait(manager)
        kill()

    checkpoint.save = saving


if __name__ == "__main__":
    die_around(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
