"""Schedules against closed forms in numpy, and the plateau against a hand-made history."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import create_model
from jaxcnn.runs.debug import debug
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.schedules import Constant, Cosine, Exponential, OneCycle, Plateau, Polynomial, StepDecay, make_rate

TOTAL = 100
NAN, INF = float("nan"), float("inf")


def curve(schedule, peak=1.0, total=TOTAL):
    rate = make_rate(schedule, peak, total, lambda duration: duration.in_steps(1000, 100))
    return np.asarray(jax.vmap(rate)(jnp.arange(total)))


def test_constant():
    np.testing.assert_allclose(curve(Constant(), 0.3), 0.3, rtol=1e-6)


def test_step_decay_counts_from_the_first_step_with_and_without_warmup():
    expected = np.where(np.arange(TOTAL) < 30, 1.0, np.where(np.arange(TOTAL) < 60, 0.1, 0.01))
    np.testing.assert_allclose(curve(StepDecay((epochs(3), steps(60)))), expected, rtol=1e-6)
    warmed = curve(StepDecay((epochs(3), steps(60)), warmup=steps(10)))
    np.testing.assert_allclose(warmed[10:], expected[10:], rtol=1e-6)
    np.testing.assert_allclose(warmed[:10], np.arange(1, 11) / 10, rtol=1e-6)


def test_cosine_with_warmup():
    s = np.arange(TOTAL)
    expected = np.where(s < 20, (s + 1) / 20, 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * (s - 20) / 79)))
    values = curve(Cosine(final=0.1, warmup=epochs(2)))
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert values[20] == 1.0 and values[-1] == np.float32(0.1)
    assert curve(Cosine(), total=1) == [1.0]


def test_a_warmup_from_a_floor_is_timms_and_torchs():
    """Before a cosine to a floor as timm has it, and before TensorFlow's stairs as timm trains EfficientNet."""
    from tests.models.parity import timm, torch

    timm()
    from timm.scheduler import CosineLRScheduler, StepLRScheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    warm = {"warmup_t": 20, "warmup_lr_init": 0.005, "t_in_epochs": False}
    floored = {"warmup": epochs(2), "warmup_from": 0.01}
    for ours, theirs in (
        (Cosine(0.1, **floored), CosineLRScheduler(optimizer, 79, lr_min=0.05, warmup_prefix=True, **warm)),
        (Exponential(0.97, epochs(2.4), **floored), StepLRScheduler(optimizer, 24, 0.97, warmup_prefix=False, **warm)),
    ):
        expected = [theirs._get_lr(step)[0] for step in range(TOTAL)]
        np.testing.assert_allclose(curve(ours, 0.5), expected, rtol=1e-5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    linear = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=20)
    expected = [linear.get_last_lr()[0]]
    for _ in range(TOTAL - 1):
        optimizer.step()
        linear.step()
        expected.append(linear.get_last_lr()[0])
    for kind in (Constant, Plateau):
        np.testing.assert_allclose(curve(kind(**floored), 0.5), expected, rtol=1e-5)


def test_exponential_counts_from_the_first_step_in_stairs_or_smoothly():
    s = np.arange(TOTAL)
    np.testing.assert_allclose(curve(Exponential(0.5, epochs(2.4))), 0.5 ** (s // 24), rtol=1e-6)
    warmed = curve(Exponential(0.9, steps(24), warmup=steps(30)), 0.2)
    np.testing.assert_allclose(warmed[:30], 0.2 * (s[:30] + 1) / 30, rtol=1e-6)
    np.testing.assert_allclose(warmed[30:], 0.2 * 0.9 ** (s[30:] // 24), rtol=1e-6)
    smooth = curve(Exponential(0.9, steps(24), staircase=False))
    np.testing.assert_allclose(smooth, 0.9 ** (s / 24), rtol=1e-6)


def test_polynomial_is_caffes_and_tensorflows_after_the_warmup():
    s = np.arange(TOTAL)
    for power in (0.5, 1.0, 2.0):
        np.testing.assert_allclose(curve(Polynomial(power)), (1 - s / TOTAL) ** power, rtol=1e-5)
    values = curve(Polynomial(2.0, final=0.1, warmup=steps(20)), 3.0)
    np.testing.assert_allclose(values[:20], 3 * (s[:20] + 1) / 20, rtol=1e-6)
    np.testing.assert_allclose(values[20:], 3 * (0.1 + 0.9 * (1 - (s[20:] - 20) / 80) ** 2), rtol=1e-5)
    assert values[20] == pytest.approx(3) and curve(Polynomial(), total=1) == [1.0]


def test_an_exponential_or_polynomial_that_cannot_be_meant_is_refused():
    refused = [
        (Exponential(factor=1.0), "factor is 1.0"),
        (Exponential(factor=NAN), "factor"),
        (Exponential(every=steps(0)), r"every is 0 steps, which is no whole step"),
        (Polynomial(power=0), "power is 0"),
        (Polynomial(power=INF), "power"),
        (Polynomial(final=1.5), "final is 1.5"),
        *(
            (kind(warmup_from=1.5), "warmup_from is 1.5")
            for kind in (Constant, Cosine, Exponential, Plateau, Polynomial)
        ),
        (StepDecay((), warmup_from=NAN), "warmup_from is nan"),
    ]
    for schedule, message in refused:
        with pytest.raises(UserError, match=rf"schedule\.{message}"):
            curve(schedule)


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing():
    values = curve(OneCycle(warm_fraction=0.3, start_divisor=25, end_divisor=1e4), peak=0.5)
    assert values[0] == pytest.approx(0.5 / 25)
    assert values.argmax() == 29 and values.max() == pytest.approx(0.5)
    assert (np.diff(values[:30]) > 0).all() and (np.diff(values[29:]) < 0).all()
    assert values[-1] == pytest.approx(0.5 / 25 / 1e4, rel=1e-6)


@pytest.mark.parametrize("total, part", [(100, 0.3), (100, 0.257), (6, 0.3), (4, 0.3), (3, 0.5), (1000, 0.01)])
def test_one_cycle_is_torchs_at_every_step(total, part):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install -e '.[parity]'): not run")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.37)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.37, total_steps=total, pct_start=part)
    theirs = []
    for step in range(total):
        theirs.append(scheduler.get_last_lr()[0])
        optimizer.step()
        if step < total - 1:
            scheduler.step()
    np.testing.assert_allclose(curve(OneCycle(part), 0.37, total), theirs, rtol=1e-5, atol=0.37e-7)
    assert curve(OneCycle(part), 0.37, total)[-1] == pytest.approx(theirs[-1], rel=1e-6)


@pytest.mark.parametrize("milestones", [(steps(60), steps(30)), (steps(5), steps(5)), (steps(4),)])
def test_milestones_out_of_order_are_refused(milestones):
    with pytest.raises(UserError, match="milestones"):
        curve(StepDecay(milestones, warmup=steps(4)))


@pytest.mark.parametrize(
    "schedule", [Constant, Cosine, Exponential, Plateau, Polynomial, lambda **kw: StepDecay((), **kw)]
)
def test_a_warmup_as_long_as_the_run_is_refused(schedule):
    for warmup in (steps(TOTAL), steps(10 * TOTAL)):
        with pytest.raises(UserError, match=r"schedule\.warmup"):
            curve(schedule(warmup=warmup))
    assert curve(schedule(warmup=steps(TOTAL - 2)))[TOTAL - 3] == 1.0
    with pytest.raises(UserError, match=r"schedule\.warmup is 99 steps of 100"):
        curve(Cosine(warmup=steps(TOTAL - 1)))


@pytest.mark.parametrize(
    "field, schedule",
    [
        *(("warm_fraction", OneCycle(warm_fraction=part)) for part in (30, 1.0, 0.0, -0.3, NAN, 0.01)),
        *(
            (field, OneCycle(**{field: divisor}))
            for field in ("start_divisor", "end_divisor")
            for divisor in (0, -1, INF)
        ),
        *(("factor", kind(factor=factor)) for kind in (StepDecay, Plateau) for factor in (-1, 0, 1, 10, NAN)),
        ("patience", Plateau(patience=0)),
        *((field, Plateau(**{field: value})) for field in ("tolerance", "smallest") for value in (-0.1, 1, NAN)),
        *(("final", Cosine(final=value)) for value in (-0.1, 1.5, NAN)),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_its_name(field, schedule):
    with pytest.raises(UserError, match=rf"schedule\.{field} is "):
        curve(schedule)


def test_plateau_divides_the_rate_after_patience_evaluations_without_improvement():
    schedule = Plateau(metric="accuracy", factor=0.1, patience=2, smallest=1e-3)
    state, scales = schedule.initial_state(), []
    for accuracy in [0.5, 0.6, 0.6, 0.6, 0.7, 0.7, 0.65, 0.6, 0.6, 0.6, 0.6, 0.6]:
        state = schedule.observe(state, accuracy, "higher")
        scales.append(float(state.scale))
    expected = [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-3, 1e-3]
    np.testing.assert_allclose(scales, expected, rtol=1e-5)


def test_plateau_on_the_loss():
    schedule = Plateau(metric="loss", patience=1)
    state = schedule.initial_state()
    for loss, scale in [(1.0, 1.0), (0.9, 1.0), (0.95, 0.1)]:
        state = schedule.observe(state, loss, "lower")
        assert float(state.scale) == pytest.approx(scale)


def test_debug_leaves_a_one_cycle_its_rise():
    """Of its six steps a twentieth would be refused."""
    experiment = Experiment(create_model("lenet5"), Data((32, 32, 1)), schedule=OneCycle(warm_fraction=0.05))
    assert curve(debug(experiment).schedule, total=6).argmax() == 1
