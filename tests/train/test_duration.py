import pytest

from jaxcnn.errors import UserError
from jaxcnn.train.duration import Duration, epochs, examples, parse, steps


@pytest.mark.parametrize(
    "text, duration",
    [
        ("5epochs", epochs(5)),
        ("1 epoch", epochs(1)),
        (" 200 steps ", steps(200)),
        ("1e6examples", examples(1e6)),
        ("0.5epochs", epochs(0.5)),
    ],
)
def test_parse_reads_what_str_writes(text, duration):
    assert parse(text) == duration
    assert parse(str(duration)) == duration


@pytest.mark.parametrize("text", ["5", "epochs", "5 days", "five epochs", "5epochs6", ""])
def test_parse_shows_the_form(text):
    with pytest.raises(ValueError, match="write 5epochs"):
        parse(text)


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf")])
def test_impossible_amounts_are_refused(amount):
    with pytest.raises(UserError):
        Duration(amount, "epochs")


def test_conversion_to_steps():
    # 60,000 examples in batches of 128 are 468.75 steps an epoch; five epochs are 2,343.75.
    assert epochs(5).in_steps(60_000, 128) == 2344
    assert steps(7).in_steps(60_000, 128) == 7
    assert examples(1280).in_steps(60_000, 128) == 10
