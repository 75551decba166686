"""The arms of tuned.py as they are, with three seeds: six cells of four steps, a study to be killed often."""

import dataclasses

import jaxcnn as jc
from tests.experiments import tuned


def study() -> jc.Study:
    return dataclasses.replace(tuned.study(), tuning=None, seeds=(0, 1, 2))
