"""Pinned: a study as it was registered before its first run, and what the study file has changed in it since.

Registered are its question, arms (a digest of each configuration), metric, claims with their margins, seeds, what a
diverged run counts as, the grid that tunes the arms, and when it stops. The first start writes claims.json into the
study's directory, with the date and a digest, and every cell gets a copy when it begins. From then on the verdicts are
those of the pinned claims, in every start, share and --report-only; a claim that the file has in another form now, or
that was not there, is shown as changed or added.
"""

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcnn import config, files
from jaxcnn.errors import UserError
from jaxcnn.studies.cell import Cell
from jaxcnn.studies.study import Arm, Study
from jaxcnn.studies.tuning import Tuning, pinned_tuning

NAME = "claims.json"
JUDGED = ("text", "metric", "higher", "lower", "beyond", "margin", "within")
"""What a verdict depends on; what was published and what is different here may be told better later."""
CHANGED, ADDED, DROPPED = "changed after the start", "added after the start", "dropped after the start"
LATE = "not pinned before the runs"

TOLD = {"seeds": "the seeds", "reach": "the thresholds to reach", "diverged": "the figures of a diverged run"}
STOPPING = "every seed of every arm is run, whatever the ones before show"
"""When a study is over: n is fixed, since looking after each seed and stopping at a verdict makes false ones."""
LATER = ("tuning", "groups", "question", "metric", "arms", "stopping")
"""What claims.json holds since it holds more than claims and figures; a file without keeps its digest."""

Results = dict[str, Any]


def claims_of(study: Study) -> list[Results]:
    """The claims as study.json has them: all fields of study.Claim, the metric filled in."""
    return [
        {
            "text": claim.text,
            "metric": claim.metric or study.metric,
            "higher": claim.higher,
            "lower": claim.lower,
            "beyond": list(claim.beyond) if claim.beyond else None,
            "margin": claim.margin,
            "within": claim.within,
            "published": claim.published,
            "different": claim.different,
        }
        for claim in study.claims
    ]


def settled(study: Study) -> Results:
    """All that decides the verdicts of a study beside its runs, and which runs these are."""
    return {
        "question": study.question,
        "metric": study.metric,
        "arms": {name: arm_digest(arm, study.tuning) for name, arm in study.arms.items()},
        "stopping": STOPPING,
        "claims": claims_of(study),
        "seeds": list(study.seeds),
        "reach": dict(study.reach),
        "diverged": dict(study.diverged),
        "tuning": pinned_tuning(study.tuning),
        "groups": {name: list(arms) for name, arms in study.groups.items()},
    }


def arm_digest(arm: Arm, tuning: Tuning | None = None) -> str:
    """SHA-256 of an arm's configuration: without its seed, where its data lie, what is tuned, and values that are off,
    so that a field which a later version adds changes nothing."""
    encoded = config.encode(arm)
    free = {"seed", *config.run_only_fields(encoded)}
    tuned = tuple(f"{field}." for field in (tuning.axes if tuning else ()))
    kept = {
        field: value
        for field, value in config.flatten(encoded).items()
        if field not in free and not f"{field}.".startswith(tuned) and value not in (None, 0, "", [], {})
    }
    return hashlib.sha256(files.to_json(kept).encode()).hexdigest()


def pin(path: pathlib.Path, study: Study, cells: Sequence[Cell]) -> Results:
    """The pinned claims of the study in `path`; they are pinned now if they are not.

    {"date", "origin", "digest", "late", and what `settled` gives}; "late" says that cells had begun before. A study's
    file that is gone comes back from the cells' copies.

    Raises:
      UserError: the file cannot be read or written, or was changed by hand.
    """
    file = path / NAME
    if not file.exists():
        kept = sorted((read(copy) for copy in _copies(cells)), key=lambda one: one["date"])
        began = any((cell.path / "config.json").exists() for cell in cells)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        fresh = {"date": now, "origin": "the first start", "late": began} | settled(study)
        _write_once(file, kept[0] if kept else fresh | {"digest": digest(fresh)})
    return read(file)


def read(file: pathlib.Path) -> Results:
    """Raises UserError if it cannot be read or its digest is not that of its claims."""
    try:
        found = json.loads(file.read_text())
        whole = found["digest"] == digest(found) and isinstance(found["date"], str) and isinstance(found["late"], bool)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read: {error}; delete it, and the copies of the cells are used") from error
    if not whole:
        raise UserError(
            f"{file} was changed by hand: its digest is not that of its claims; delete it, and the copies of the cells "
            "are used"
        )
    return found


def digest(pinned: Mapping[str, Any]) -> str:
    """SHA-256 of what decides the verdicts."""
    # Claims without one, such as those of before there was any, keep their digest.
    claims = [
        {name: value for name, value in _judged(claim).items() if name != "within" or value is not None}
        for claim in pinned["claims"]
    ]
    parts = {"claims": claims} | {name: pinned[name] for name in ("seeds", "reach", "diverged")}
    parts |= {name: pinned[name] for name in LATER if pinned.get(name)}
    return hashlib.sha256(files.to_json(parts).encode()).hexdigest()


def keep_copy(cell: pathlib.Path, pinned: Results) -> None:
    """Puts the pinned claims into a cell's directory, unless it has them or nothing is claimed. Raises UserError if it
    cannot be written."""
    if not pinned or (cell / NAME).exists():
        return
    try:
        files.write_json(cell / NAME, pinned)
    except OSError as error:
        raise UserError(f"{cell / NAME} cannot be written: {error}") from error


def summary(pinned: Results, study: Study | Results, cells: Sequence[Cell] = ()) -> Results:
    """What study.json says of the pinned claims: {"date", "origin", "digest", "late", "stopping", "changes"}."""
    now = study if isinstance(study, dict) else settled(study)
    changes = [
        f"{what} were {_said(pinned[name])} at the start and are {_said(now[name])}"
        for name, what in TOLD.items()
        if now[name] != pinned[name]
    ]
    if "tuning" in now and now["tuning"] != pinned.get("tuning"):
        changes.append("the tuning was another one at the start")
    if "groups" in now and now["groups"] != pinned.get("groups", {}):
        changes.append("the groups of arms were others at the start")
    changes += [
        f"the {name} was {pinned[name]!r} at the start and is {now[name]!r}"
        for name in ("question", "metric")
        if name in now and pinned.get(name, now[name]) != now[name]
    ]
    changes += _changed_arms(pinned.get("arms", {}), now.get("arms", {}))
    others = [cell.name for cell in cells if _other(cell, pinned)]
    if others:
        changes.append(f"these cells were run under other claims: {', '.join(others)}")
    about = {name: pinned[name] for name in ("date", "origin", "digest", "late")}
    return about | {"stopping": pinned.get("stopping"), "changes": changes}


def same_registration(pinned: Results, study: Study) -> bool:
    """Whether the study file says what was pinned, as far as that tells; of its arms only their names and order, since
    their configurations are those of another version of this package in time."""
    now = {name: value for name, value in settled(study).items() if name in pinned}
    if "arms" in now and list(now["arms"]) == list(pinned["arms"]):
        now["arms"] = pinned["arms"]
    return digest(now) == pinned["digest"]


def _changed_arms(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    if not old or not new:
        return []
    changes = [f"the arm {name!r} had another configuration" for name in new if old.get(name, new[name]) != new[name]]
    changes += [f"the arm {name!r} was not there at the start" for name in new if name not in old]
    return changes + [f"the arm {name!r} of the start is gone" for name in old if name not in new]


def matched(pinned: Results, present: Sequence[Results]) -> list[Results]:
    """The claims to judge: the pinned ones in their order, then those that were added.

    Each has "change", one of CHANGED, ADDED, DROPPED, LATE or "", and "now": what the study file has instead of a
    changed one, None elsewhere.
    """
    rest = list(present)
    pairs: list[tuple[Results, Results | None]] = []
    for claim in pinned["claims"]:
        same = next((one for one in rest if _judged(one) == _judged(claim)), None)
        if same is not None:
            rest.remove(same)
        pairs.append((claim, same))
    found = []
    for claim, same in pairs:
        if same is not None:
            found.append(claim | _told(same) | {"change": LATE if pinned["late"] else "", "now": None})
            continue
        near = max(rest, key=lambda one: _alike(one, claim), default=None)
        if near is None or _alike(near, claim) < 2:
            found.append(claim | {"change": DROPPED, "now": None})
            continue
        rest.remove(near)
        found.append(claim | _told(near) | {"change": CHANGED, "now": _judged(near)})
    return found + [claim | {"change": ADDED, "now": None} for claim in rest]


def _judged(claim: Results) -> Results:
    return {name: claim.get(name) for name in JUDGED}


def _told(claim: Results) -> Results:
    return {name: claim[name] for name in ("published", "different")}


def _alike(one: Results, other: Results) -> int:
    """In how many fields two claims agree; 0 if neither the text nor the two arms are the same."""
    if one["text"] != other["text"] and {one["higher"], one["lower"]} != {other["higher"], other["lower"]}:
        return 0
    return sum(one[name] == other[name] for name in JUDGED if name != "within")


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each:g}" for name, each in value.items()) or "none"
    return ", ".join(map(str, value))


def _copies(cells: Sequence[Cell]) -> list[pathlib.Path]:
    return [cell.path / NAME for cell in cells if (cell.path / NAME).exists()]


def _other(cell: Cell, pinned: Results) -> bool:
    return (cell.path / NAME).exists() and read(cell.path / NAME)["digest"] != pinned["digest"]


def _write_once(file: pathlib.Path, pinned: Results) -> None:
    """Writes the file unless another share has done so meanwhile."""
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        files.write_json(part, pinned)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(part, file)
        except OSError:  # a file system without links
            if not file.exists():
                files.write_json(file, pinned)
        finally:
            part.unlink()
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error}; choose another --workdir") from error
