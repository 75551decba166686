"""The command about this machine and the others of a run: what a run would find here."""

import dataclasses
import os
import pathlib

from rich.console import Console

from jaxcnn.commands.output import show


def doctor(
    workdir: pathlib.Path = pathlib.Path("runs"),
    data_dir: str | None = None,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    start_timeout: float = 300.0,
    json: bool = False,
) -> int:
    """The checks before a run, alone: devices, versions, disk, cache, data, and the way to other processes.

    Run it where a run would: in a shell, or as `srun jaxcnn doctor` on the nodes of a job.

    Args:
      workdir: Where run directories will be.
      data_dir: Where prepared TFDS data lies.
      coordinator: HOST:PORT of process 0, where no scheduler tells.
      processes: How many processes; 1 ignores the scheduler.
      process: Which of them this is, from 0.
      start_timeout: Seconds for the slowest process to start.
      json: Print JSON.
    """
    from jaxcnn.cluster.doctor import examine, findings_table
    from jaxcnn.cluster.environment import ProcessFlags
    from jaxcnn.cluster.initialize import Deadlines, initialize
    from jaxcnn.launch import set_up_cache

    deadlines = Deadlines(start_timeout, start_timeout)
    group = initialize(os.environ, ProcessFlags(coordinator, processes, process), deadlines)
    set_up_cache(Console(stderr=True))
    findings = list(examine(group, deadlines, workdir, data_dir))
    failed = [finding for finding in findings if finding.state == "fail"]
    if group.index == 0 or failed:
        show([dataclasses.asdict(finding) for finding in findings], findings_table(findings), json)
    message = "; ".join(finding.found for finding in failed)
    if group.heartbeat is not None:
        group.exit(1 if failed else 0, message)
    return 1 if failed else 0
