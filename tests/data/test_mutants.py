"""Over two hundred odd or damaged image files: each is read rightly or refused with the reason, and none otherwise."""

import numpy as np
import pytest

from jaxcnn.data.images import decode
from tests.data.mutants import mutants
from tests.data.mutants.mutant import Mutant

MUTANTS = mutants()


def wrong(mutant: Mutant) -> str:
    """What is wrong in the answer; empty where it is right."""
    try:
        pixels = decode(mutant.data, 3)
    except ValueError as error:
        if mutant.pixels is not None:
            return f"refused: {error}"
        return "" if mutant.cause.lower() in str(error).lower() else f"another cause: {error}"
    if mutant.pixels is None:
        return "read, and had to be refused"
    if pixels.shape != mutant.pixels.shape:
        return f"{pixels.shape}, not {mutant.pixels.shape}"
    off = np.abs(pixels.astype(int) - mutant.pixels)
    return f"{(off > mutant.tolerance).mean():.1%} wrong, by up to {off.max()}" if off.max() > mutant.tolerance else ""


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what is odd in them
def test_each_is_read_rightly_or_refused_with_the_reason():
    answers = {f"{number} {mutant.name}": wrong(mutant) for number, mutant in enumerate(MUTANTS)}
    assert {name: answer for name, answer in answers.items() if answer} == {}


def test_there_are_over_two_hundred_and_most_are_to_be_read():
    refused = sum(mutant.pixels is None for mutant in MUTANTS)
    assert (len(MUTANTS) - refused, refused) == (174, 31)
