"""Error rates: what docs/results/verdict_error_rates.json says, as a table for docs.

benchmarks/verdict_error_rates.py writes that file.
"""

import json
import pathlib

from jaxcnn.studies.figures import Results

FILE = pathlib.Path("docs") / "results" / "verdict_error_rates.json"
HEADER = (
    "| the truth is at the margin: every verdict is false | seeds | called above | called below | t interval holds the "
    "mean | bootstrap | one of both |",
    "|---|---|---|---|---|---|---|",
)


def read_error_rates(root: pathlib.Path) -> Results:
    return json.loads((root / FILE).read_text())


def error_rates_table(results: Results) -> str:
    """Markdown: a row for each situation and number of seeds, those first that a verdict's rule promises for."""
    lines = [*HEADER]
    for row in results["rows"]:
        name = row["situation"] + ("" if row["promise"] == "promised" else f" (**{row['promise']}**)")
        held = [f"{row[interval]:.1%}" if interval in row else "-" for interval in ("t", "bootstrap", "either")]
        lines.append(f"| {name} | {row['seeds']} | {row['above']:.1%} | {row['below']:.1%} | {' | '.join(held)} |")
    return "\n".join(lines)


def error_rates_text(results: Results) -> str:
    """What the table says in sentences, with its own figures."""
    promised = [row for row in results["rows"] if row["promise"] == "promised"]
    most = max(max(row["above"], row["below"]) for row in promised)
    covered = [row for row in promised if "t" in row]
    worst = max(max(row["above"], row["below"]) for row in results["rows"] if row["promise"].startswith("worst"))
    page, claims = max(results["pages"], key=lambda each: each["with"]), results["pages"][0]["claims"]
    alone = min(each["without"] for each in results["pages"])
    drawn, seeds_alone = (min(each[name] for each in results["images"]) for name in ("both", "seeds alone"))
    return (
        f"In {results['studies']:,} simulated studies of each row (`{results['command']}`) a verdict is false in at "
        f"most {most:.1%} on one side where the rule promises 2.5%, the t interval holds the mean in at least "
        f"{min(row['t'] for row in covered):.1%} there, and one of both intervals in "
        f"{min(row['either'] for row in covered):.1%}; with five seeds whose differences have two values alone it is "
        f"{worst:.1%}, the least that five signs can have. Of pages with {claims} claims on equal arms at most "
        f"{page['with']:.1%} have a false verdict with Holm's correction, and {alone:.0%} or more without. If test "
        f"images are drawn too, the interval over seeds and images holds the difference in at least {drawn:.1%}, and "
        f"that over seeds alone in as few as {seeds_alone:.1%}. What is not promised no method can mend: if mean and "
        "median are on different sides of the margin, or no seed has shown a collapse, the verdict speaks of the seeds "
        "that one sees."
    )
