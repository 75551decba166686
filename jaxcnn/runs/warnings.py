"""Warnings: what a person should know of a plan before it runs, and may not have meant."""

from jaxcnn.data.box_rules import counts, notes_of
from jaxcnn.data.splits import classes_without_images, shared
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.setup import Plan
from jaxcnn.runs.several_steps import least_interval
from jaxcnn.tasks.views import TenCrop, views_of
from jaxcnn.train.averages import SWA
from jaxcnn.train.schedules import StepDecay

FEW_STEPS = 10
"""A run with fewer learns next to nothing; one whose length is given in steps is meant so."""


def warnings_of(plan: Plan) -> list[str]:
    """What a person should know of the splits and the length, and may not have meant."""
    found = []
    data, few = plan.experiment.data, len(plan.train) // 4
    try_batch = f"try a smaller batch, such as --data.batch-size {max(1, min(few, data.batch_size // 2))}"
    if data.batch_size > len(plan.train):
        found.append(
            f"data.batch_size {data.batch_size} is more than the {len(plan.train)} images of {plan.train.split}, "
            f"so that a step sees some of them twice; {try_batch}"
        )
    if plan.total < FEW_STEPS and plan.experiment.duration.unit != "steps":
        found.append(
            f"{plan.experiment.duration} are {plan.total} steps of {data.batch_size} images, too few to learn; "
            f"{try_batch}, or a longer --duration"
        )
    if isinstance(plan.experiment.schedule, StepDecay):
        milestones = plan.experiment.schedule.milestones
        late = [each for each in milestones if each.in_steps(len(plan.train), data.batch_size) >= plan.total]
        if late:
            found.append(
                f"the run ends at step {plan.total}, before {len(late)} of the {len(milestones)} "
                f"schedule.milestones ({', '.join(map(str, late))})"
            )
    found += [
        f"groups: {group.match!r} is frozen until step {group.release:,}, and the run ends at step {plan.total:,}"
        for group in plan.experiment.groups
        if group.release >= plan.total
    ]
    due, per_call = least_interval(plan), plan.experiment.steps_per_call
    if per_call > due:
        found.append(
            f"steps_per_call {per_call} never fits, so that each step is a call of its own: a line of the log, an "
            f"evaluation, a save or the end is due every {due} steps; try --steps-per-call {due}"
            if due > 1
            else f"steps_per_call {per_call} never fits, since something is due after each step"
        )
    views = views_of(plan.experiment.task)
    if isinstance(views, TenCrop) and (doubt := views.doubt(data.shape(evaluated=True))):
        found.append(f"task.views: {doubt}; give larger images by data.preprocess and data.evaluation_shape")
    ema = plan.experiment.ema
    if isinstance(ema, SWA) and ema.start.amount > plan.total:
        found.append(f"ema averages from step {ema.start.amount:,.0f} on, and the run ends at step {plan.total:,}")
    for name, examples in (plan.evaluations | plan.tests).items():
        both = shared(plan.train, examples)
        if both:
            found.append(f"{both:,} of the {len(examples):,} images of {name} are trained on too")
    for name, examples in plan.evaluations.items():
        for other, test in plan.tests.items():
            both = shared(examples, test)
            if both:
                found.append(
                    f"{both:,} of the {len(test):,} images of {other} are also in {name}, evaluated in training"
                )
    for name, examples in ({plan.train.split: plan.train} | plan.evaluations | plan.tests).items():
        found += [f"{name}: {line}; `jaxcnn data check` names each" for line in counts(notes_of(examples))]
    labeled = "label" in batch_fields(plan.experiment)
    for name, examples in ({plan.train.split: plan.train} | plan.evaluations | plan.tests).items():
        missing = classes_without_images(examples) if labeled else ()
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            found.append(f"{name} has no image of {', '.join(missing[:5])}{more}")
    return found
