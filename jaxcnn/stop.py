"""Stop: how a process is told to stop. It then saves at its next step, ends with exit code 75, and can go on."""

import os
import signal
from typing import Any

from jaxcnn.terminal import say

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


class Stop:
    """Whether this process was told to stop: call it. From its making on, signals tell it so.

    SIGTERM, SIGUSR1, Ctrl-C, and SIGHUP, which a closed terminal sends, unless nohup has it ignored. A second Ctrl-C
    ends the process at once, with nothing more saved. The handler raises nothing, whatever stderr is.
    """

    def __init__(self) -> None:
        self._told = False
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)

    def __call__(self) -> bool:
        return self._told

    def tell(self) -> None:
        """Stops the process as a signal does."""
        self._told = True

    def _note(self, number: int, _: Any) -> None:
        if self._told and number == signal.SIGINT:
            say("stopped at once\n")
            os._exit(128 + number)
        self._told = True
        say(f"\n{signal.Signals(number).name}: saving; Ctrl-C again to leave at once\n")
