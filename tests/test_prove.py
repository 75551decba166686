"""jaxcnn prove-resume passes where resume is exact, and says so where it is not."""

import re
import signal

import pytest

from jaxcnn.prove import resume
from jaxcnn.prove.resume import expected_codes, is_behind
from tests.tiny_runs import TINY, call, finish

SHORT = ("--duration", "24steps", "--log-every", "4steps", "--checkpoints.every", "5steps")


def test_interruptions_of_every_phase_and_changes_of_size_are_survived(tmp_path):
    flags = ("--kills", 6, "--resizes", 1, "--workdir", tmp_path / "proof", *SHORT)
    out = finish("prove-resume", TINY, *flags, module="jaxcnn").stdout
    assert "FAIL" not in out and "resumed on 4 -> 2 processes: equal" in out
    for phase, count in {"start": 1, "compile": 1, "step": 2, "evaluation": 1, "save": 1, "end": 2}.items():
        assert re.search(rf"│ {phase} +│ {count} +│ [01] +│ [0123] +│ {count} +│ pass", out)


@pytest.mark.parametrize(
    "phase, number, behind, done, codes",
    [
        ("step", signal.SIGKILL, True, True, {-9}),
        ("step", signal.SIGTERM, False, True, {-15, 75}),
        ("compile", signal.SIGTERM, True, True, {-15, 75, 0}),
        ("evaluation", signal.SIGTERM, True, False, {-15, 75}),
        ("start", signal.SIGUSR1, False, True, {-10, 75, 0}),
        ("save", signal.SIGINT, True, True, {-2, 75, 0, 1, 130}),
    ],
)
def test_only_a_signal_behind_the_last_step_may_be_without_effect(phase, number, behind, done, codes):
    assert expected_codes(phase, number, behind, done) == codes


def test_a_signal_is_behind_the_last_step_if_no_more_than_that_step_ends_after_it():
    step, save, sent = {"phase": "step"}, {"phase": "save"}, {"signal": 15}
    assert is_behind([step, step, sent, save]) and is_behind([step, sent, step, save])
    assert not is_behind([step, sent, step, save, step]) and not is_behind([step, step])


def test_more_changes_of_size_than_steps_are_refused(tmp_path):
    flags = ("--kills", 0, "--resizes", 24, "--workdir", tmp_path / "proof", *SHORT)
    done = call("prove-resume", TINY, *flags, module="jaxcnn")
    assert done.returncode == 1 and "takes 24 steps with these flags, too few for 24 changes" in done.stderr


def test_a_run_that_cannot_be_repeated_fails_the_proof(tmp_path):
    """Augmentation that draws from the machine instead of the generator that it is given."""
    file = tmp_path / "noisy.py"
    file.write_text("""
import dataclasses
import numpy as np
from tests.experiments.tiny import experiment as tiny

@dataclasses.dataclass(frozen=True)
class Noise:
    def __call__(self, image, rng):
        return image ^ np.random.default_rng().integers(0, 64, image.shape, dtype=np.uint8)

def experiment():
    made = tiny()
    return dataclasses.replace(made, data=dataclasses.replace(made.data, augment=(*made.data.augment, Noise())))
""")
    flags = ("--kills", 1, "--devices", 1, "--workdir", tmp_path / "proof", *SHORT)
    done = call("prove-resume", file, *flags, module="jaxcnn")
    assert done.returncode == 1 and "FAIL: other result and metrics and state" in done.stdout
    assert "1 of 1 interruptions changed the run" in done.stderr and "Traceback" not in done.stderr


def test_seeds_that_train_as_one_program_are_interrupted_too_and_so_are_those_that_tune_them(tmp_path):
    file = tmp_path / "arms.py"
    file.write_text("""
import dataclasses
import jaxcnn as jc
from tests.experiments.tiny import experiment as tiny

def study() -> jc.Study:
    made = dataclasses.replace(tiny(), duration=jc.steps(9), checkpoints=jc.Checkpoints(every=jc.steps(4)))
    arms = {"fast": made, "slow": dataclasses.replace(made, optimizer=jc.SGD(0.01))}
    tuning = jc.Tuning({"optimizer.learning_rate": (0.01, 0.05)}, seeds=(100, 101), metric="validation loss")
    return jc.Study(question="?", arms=arms, claims=(), seeds=(0, 1), tuning=tuning)
""")
    flags = ("--kills", 1, "--devices", 1, "--workdir", tmp_path / "proof", "--", "--vmap-seeds", "yes")
    out = finish("prove-resume", file, *flags, module="jaxcnn").stdout
    assert "1/1" in out and "equal" in out and "FAIL" not in out
    assert not (tmp_path / "proof" / "0_0").exists() and len([*(tmp_path / "proof/whole").glob("cells/*/*")]) == 4
    compared = {name.split("/")[0] for name in resume._read(tmp_path / "proof/whole").result}
    assert compared == {"cells", "tuning"} and len([*(tmp_path / "proof/whole").glob("tuning/*/*/*")]) == 8


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "mine").write_text("")
    done = call("prove-resume", TINY, "--workdir", tmp_path, module="jaxcnn")
    assert done.returncode == 1 and "is not empty" in done.stderr
