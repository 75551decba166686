"""Schedules against closed forms in numpy, and the plateau against a hand-made history."""

import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.schedules import Constant, Cosine, OneCycle, Plateau, StepDecay, make_rate

TOTAL = 100


def curve(schedule, peak=1.0):
    rate = make_rate(schedule, peak, TOTAL, lambda duration: duration.in_steps(1000, 100))
    return np.array([float(rate(step)) for step in range(TOTAL)])


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
    expected = np.where(s < 20, (s + 1) / 20, 0.5 * (1 + np.cos(np.pi * (s - 20) / 80)))
    np.testing.assert_allclose(curve(Cosine(warmup=epochs(2))), expected, atol=1e-6)


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing():
    values = curve(OneCycle(warm_fraction=0.3, start_divisor=25, end_divisor=1e4), peak=0.5)
    assert values[0] == pytest.approx(0.5 / 25)
    assert values.argmax() == 30 and values.max() == pytest.approx(0.5)
    assert (np.diff(values[:31]) > 0).all() and (np.diff(values[30:]) < 0).all()
    assert values[-1] < 0.5 / 500


@pytest.mark.parametrize("milestones", [(steps(60), steps(30)), (steps(5), steps(5)), (steps(4),)])
def test_milestones_out_of_order_are_refused(milestones):
    with pytest.raises(UserError, match="milestones"):
        curve(StepDecay(milestones, warmup=steps(4)))


def test_warmup_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match="warmup"):
        curve(Cosine(warmup=steps(100)))


def test_plateau_divides_the_rate_after_patience_evaluations_without_improvement():
    schedule = Plateau(metric="accuracy", factor=0.1, patience=2, smallest=1e-3)
    state, scales = schedule.initial_state(), []
    for accuracy in [0.5, 0.6, 0.6, 0.6, 0.7, 0.7, 0.65, 0.6, 0.6, 0.6, 0.6, 0.6]:
        state = schedule.observe(state, {"accuracy": accuracy, "loss": 0.0})
        scales.append(float(state.scale))
    expected = [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-3, 1e-3]
    np.testing.assert_allclose(scales, expected, rtol=1e-5)


def test_plateau_on_the_loss():
    schedule = Plateau(metric="loss", patience=1)
    state = schedule.initial_state()
    for loss, scale in [(1.0, 1.0), (0.9, 1.0), (0.95, 0.1)]:
        state = schedule.observe(state, {"accuracy": 0.0, "loss": loss})
        assert float(state.scale) == pytest.approx(scale)
