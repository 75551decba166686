"""Figures as people say them."""

import pytest

from jaxcnn.studies.units import figure, is_percentage, signed

CASES = [
    ("test accuracy", 0.9155, "91.5%", "+91.5 points"),
    ("test[:2000] top5", -0.0039, None, "\N{MINUS SIGN}0.4 points"),
    ("test mean_iou", 0.4, "40.0%", "+40.0 points"),
    ("test voc07_map", 0.25, "25.0%", "+25.0 points"),
    ("gap", 0.0, "0.0%", "0.0 points"),
    ("loss gap", 0.4943, "0.494", "+0.494"),
    ("epochs to train accuracy 0.75", 7.733, "7.73 epochs", "+7.73 epochs"),
    ("accuracy lost to the shift", 0.08, "8.0%", "+8.0 points"),
    ("parameters", 20666, "20,666", "+20,666 parameters"),
    ("megabytes kept", 3.837, "3.84", "+3.84 megabytes"),
    ("relative time per image", 1.3615, "1.36 times", "+1.36 times"),
    ("milliseconds per test image", 0.2861, "0.286 milliseconds", "+0.286 milliseconds"),
    ("train loss", -0.00004, None, "\N{MINUS SIGN}4e-05"),
    ("train loss", 0.0, "0", "0"),
]


@pytest.mark.parametrize(("metric", "value", "said", "difference"), CASES)
def test_a_figure_has_its_unit(metric, value, said, difference):
    assert said is None or figure(metric, value) == said
    assert signed(metric, value) == difference
    assert is_percentage(metric) == ("points" in difference)
