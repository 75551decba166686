"""Together: the seeds of one arm as one compiled program, vmap over seeds, for nets that leave a device idle.

Each seed keeps its own run directory, with the files and checkpoints of a run of its own, so that a cell does not show
how it was trained. Data order, augmentation, weights and dropout are those of the run alone; results agree to rounding,
since vmap makes other convolutions of the same sums. With several devices the seeds are shared out over them where
their number divides.

Not for experiments that start from other weights or tolerate broken images: these run one by one.
"""

import contextlib
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from rich.console import Console

from jaxcnn import config
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.memory import load
from jaxcnn.data.pipeline import iterate
from jaxcnn.experiment import Experiment
from jaxcnn.runs import checkpoint
from jaxcnn.runs.display import Display
from jaxcnn.runs.evaluation import evaluation_batches, nets_of
from jaxcnn.runs.loop import train_batches
from jaxcnn.runs.program import train_step
from jaxcnn.runs.run_directory import RunDirectory
from jaxcnn.runs.selection import Best, best_of, selection
from jaxcnn.runs.setup import Plan, abstract_state, initial_state, make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.runs.training_log import HIDDEN
from jaxcnn.studies.cell import Cell
from jaxcnn.studies.pinned import keep_copy
from jaxcnn.train.losses import zero_sums
from jaxcnn.train.schedules import Plateau
from jaxcnn.train.step import make_evaluation_step

SMALL = 2_000_000
"""Parameters up to which a net leaves an accelerator idle and its seeds are trained together by default."""


def fits(cells: Sequence[Cell]) -> bool:
    """Whether these cells can be trained together: seeds of one training run, all unfinished."""
    arm = cells[0].arm
    return (
        len(cells) > 1
        and isinstance(arm, Experiment)
        and arm.init_from.run is None
        and not arm.data.tolerate_broken
        and not arm.tensorboard
        and not arm.skip_bad_steps
        and jax.process_count() == 1
    )


def run_together(
    cells: Sequence[Cell],
    file: pathlib.Path,
    console: Console,
    stop: Callable[[], bool],
    pinned: dict[str, Any],
    accept_code: bool = False,
) -> bool:
    """Trains the cells from the newest step that all have saved; False where `stop` ended it, with all saved.

    Raises:
      UserError: as loop.run. A seed that diverges is recorded as such and the others go on.
    """
    with contextlib.ExitStack() as held:
        plans = [make_plan(cell.arm) for cell in cells]
        records = [
            held.enter_context(
                start_run(cell.path.absolute(), config.encode(cell.arm), file, plan.dataset(), accept_code)
            )
            for cell, plan in zip(cells, plans, strict=True)
        ]
        for cell in cells:
            keep_copy(cell.path, pinned)
        display = held.enter_context(Display(console, lines=False))
        seeds = _Seeds(plans, records)
        held.callback(seeds.close)
        try:
            return seeds.run(display, stop)
        except BaseException as error:
            for record in records:
                message = f"{type(error).__name__}: {error}".splitlines()[0]
                record.write_status("failed", seeds.step, message=message)
            raise


class _Seeds:
    """One start of the seeds of an arm; all their states are arrays with the seeds in front."""

    def __init__(self, plans: Sequence[Plan], records: Sequence[RunDirectory]):
        self.plans, self.records = plans, records
        self.plan = plans[0]
        kept = self.plan.experiment.checkpoints
        self.managers = [checkpoint.open_manager(record.checkpoints, kept) for record in records]
        self.diverged: set[int] = set()
        self.step = 0
        self.evaluations: list[dict[str, Any]] = [{} for _ in plans]
        self.best = [Best(kept) for _ in plans]
        devices = jax.device_count() if len(plans) % jax.device_count() == 0 else 1
        mesh = jax.make_mesh((devices,), ("seed",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
        self.over_seeds = NamedSharding(mesh, PartitionSpec("seed"))
        self.everywhere = NamedSharding(mesh, PartitionSpec())

    def close(self) -> None:
        for manager in self.managers:
            manager.close()

    def run(self, display: Display, stop: Callable[[], bool]) -> bool:
        plan, data = self.plan, self.plan.experiment.data
        self.state = self._restore()
        with jax.default_matmul_precision(plan.experiment.precision):
            one = train_step(plan.experiment, plan.optimizer, plan.rate, plan.log_every)
            step = jax.jit(jax.vmap(one), donate_argnums=0, out_shardings=self.over_seeds)
            evaluation = jax.vmap(make_evaluation_step(plan.experiment.model, data.normalize), in_axes=(0, 0, None))
            self.evaluation_step = jax.jit(evaluation)
            train, augment = load(plan.train, data.augment, with_image(data.image_shape, LABEL), data.memory_limit)
            self.splits = self._load(plan.evaluations)
            batches = [
                iterate(train_batches(one, train, augment), self.step, workers=data.workers) for one in self.plans
            ]
            with contextlib.ExitStack() as held, display.task("train", plan.total, self.step) as advance:
                for each in batches:
                    held.enter_context(contextlib.closing(each))
                self._go(step, batches, advance, stop)
                if self.step == plan.total:
                    self._finish()
        return self.step == plan.total

    def _load(self, splits: dict[str, Any]) -> dict[str, Any]:
        data = self.plan.experiment.data
        fields = with_image(data.image_shape, LABEL)
        return {name: load(examples, data.preprocess, fields, data.memory_limit) for name, examples in splits.items()}

    def _finish(self) -> None:
        """Reads the test splits, once, and writes the results."""
        tested = self._measure(self._load(self.plan.tests))
        for seed, record in enumerate(self.records):
            if seed not in self.diverged:
                chosen = selection(self.plan.experiment, self.best[seed])
                record.write_result(tested[seed] | self.evaluations[seed], chosen)
        self._status("done")

    def _go(
        self, step: Any, batches: Sequence[Iterator[Any]], advance: Callable[..., None], stop: Callable[[], bool]
    ) -> None:
        plan, began, waited, since = self.plan, time.perf_counter(), 0.0, self.step
        while self.step < plan.total:
            if stop():
                self._save(set())
                self._status("preempted", message="stopped; the same command continues")
                return
            before = time.perf_counter()
            parts = [next(each) for each in batches]
            batch = {name: np.stack([part[name] for part in parts]) for name in ("image", "label")}
            waited += time.perf_counter() - before
            self.state, metrics = step(self.state, jax.device_put(batch, self.over_seeds))
            self.step += 1
            last = self.step == plan.total
            if self.step % plan.log_every == 0 or last:
                metrics = jax.device_get(metrics)
                seconds = time.perf_counter() - began
                self._log(metrics, (self.step - since) / seconds, waited / seconds)
                advance(self.step, f"loss {metrics['loss'].sum() / metrics['count'].sum():.4f}")
                began, waited, since = time.perf_counter(), 0.0, self.step
            due = bool(plan.evaluations) and (last or self.step % plan.evaluate_every == 0)
            if due or self.step % plan.checkpoint_every == 0:
                jax.block_until_ready(self.state)
            paused = time.perf_counter()
            among_best = self._evaluate() if due else set()
            # All seeds save with one that is among its best, since a restart needs a step that all have.
            if last or among_best or self.step % plan.checkpoint_every == 0:
                self._save(among_best)
            began += time.perf_counter() - paused

    def _restore(self) -> Any:
        """The states at the newest step that all seeds have, or new ones."""
        common = set.intersection(*(set(manager.all_steps()) for manager in self.managers))
        self._status("running", step=max(common, default=0))
        if not common:
            create = jax.jit(functools.partial(initial_state, self.plan.experiment, self.plan.optimizer))
            states = [create(np.uint32(one.experiment.seed)) for one in self.plans]
            for record in self.records:
                record.cut_metrics(0)
        else:
            self.step = max(common)
            states = []
            for seed, (manager, record) in enumerate(zip(self.managers, self.records, strict=True)):
                for newer in [saved for saved in manager.all_steps() if saved > self.step]:
                    manager.delete(newer)  # saved when another seed no longer could
                abstract = abstract_state(self.plan.experiment, self.plan.mesh)
                state, note = checkpoint.restore(manager, self.step, abstract, record.recognize)
                states.append(state)
                record.cut_metrics(note["metrics_size"])
                self.evaluations[seed] = note["evaluations"]
                self.best[seed] = best_of(self.plan.experiment.checkpoints, note["best"])
        local = [jax.device_put(state, jax.devices()[0]) for state in states]
        return jax.device_put(jax.tree.map(lambda *seeds: jnp.stack(seeds), *local), self.over_seeds)

    def _log(self, metrics: dict[str, np.ndarray], steps_per_second: float, wait: float) -> None:
        """A line of training for each seed; images per second are a seed's share."""
        size = self.plan.experiment.data.batch_size
        for seed, record in enumerate(self.records):
            bad = int(metrics["bad_step"][seed])
            if seed in self.diverged:
                continue
            if bad:
                self._diverge(seed, bad, f"the loss or the gradient was not finite at step {bad:,}")
                continue
            values = {name: value[seed].item() for name, value in metrics.items() if name not in HIDDEN}
            count = values.pop("count")
            means = {name: values.pop(name) / count for name in ("loss", "accuracy", "top5") if name in values}
            epoch = self.step * size / len(self.plan.train)
            times = {"examples_per_second": steps_per_second * size, "data_wait": wait}
            record.log(
                {"step": self.step, "split": "train", "epoch": epoch} | means | values | {"count": count} | times
            )

    def _measure(self, splits: dict[str, Any]) -> list[dict[str, Any]]:
        """The figures of each seed on these splits, logged."""
        data = self.plan.experiment.data
        measured: list[dict[str, Any]] = [{} for _ in self.plans]
        for name, (examples, transforms) in splits.items():
            totals = {suffix: zero_sums(len(examples.classes)) for suffix in nets_of(self.state)}
            with contextlib.closing(iterate(evaluation_batches(data, examples, transforms))) as batches:
                for batch in batches:
                    fields = {field: batch[field] for field in ("image", "label", "valid")}
                    placed = jax.device_put(fields, self.everywhere)
                    for suffix, (params, stats) in nets_of(self.state).items():
                        sums = self.evaluation_step(params, stats, placed)
                        totals[suffix] = jax.tree.map(jnp.add, totals[suffix], sums)
            for suffix, total in jax.device_get(totals).items():
                for seed in range(len(self.plans)):
                    count = int(total["count"][seed])
                    means = {key: float(np.float64(value[seed]) / count) for key, value in total.items()}
                    measured[seed][name + suffix] = means | {"count": count}
        for seed, record in enumerate(self.records):
            if seed not in self.diverged:
                for split, metrics in measured[seed].items():
                    record.log({"step": self.step, "split": split, **metrics})
                bad = [split for split, metrics in measured[seed].items() if not math.isfinite(metrics["loss"])]
                if bad:
                    self._diverge(seed, self.step, f"the loss on {bad[0]} was not finite at step {self.step:,}")
        return measured

    def _diverge(self, seed: int, step: int, message: str) -> None:
        self.diverged.add(seed)
        indices = train_batches(self.plans[seed], self.plan.train, ()).indices(step - 1).tolist()
        self.records[seed].write_status("diverged", step, message=message, examples=indices)

    def _evaluate(self) -> set[int]:
        """The seeds of which this evaluation is among the best."""
        self.evaluations = self._measure(self.splits)
        before = list(self.best)
        for seed, found in enumerate(self.evaluations):
            self.best[seed] = self.best[seed].with_evaluation(self.step, next(iter(found.values())))
        schedule = self.plan.experiment.schedule
        if isinstance(schedule, Plateau):
            each = [
                schedule.observe(jax.tree.map(lambda x, i=seed: x[i], self.state.plateau), next(iter(found.values())))
                for seed, found in enumerate(self.evaluations)
            ]
            plateau = jax.tree.map(lambda *seeds: jnp.stack(seeds), *each)
            self.state = self.state.replace(plateau=jax.device_put(plateau, self.over_seeds))
        return {seed for seed, best in enumerate(self.best) if best is not before[seed]}

    def _save(self, scored: set[int]) -> None:
        """`scored`: the seeds of which this step is among the best."""
        first = next(iter(self.plan.evaluations), None)
        for seed, (manager, record) in enumerate(zip(self.managers, self.records, strict=True)):
            if self.step in manager.all_steps():
                continue
            state = jax.tree.map(lambda x, i=seed: x[i], self.state)
            found = self.evaluations[seed]
            note = {"evaluated": True, "evaluations": found, "best": self.best[seed].note(), **record.position()}
            checkpoint.save(manager, self.step, state, note, found[first] if seed in scored else None)
        for manager in self.managers:
            checkpoint.wait(manager)

    def _status(self, state: str, *, step: int | None = None, **more: Any) -> None:
        for seed, record in enumerate(self.records):
            if seed not in self.diverged:
                record.write_status(state, self.step if step is None else step, **more)
