"""All verdicts as a page in Markdown: a table for each experiment, a line for each claim. Nothing is run here."""

from __future__ import annotations

from collections.abc import Iterable
from os.path import relpath
from pathlib import Path

from slotwise.laboratory.finding import Found
from slotwise.laboratory.machine import describe
from slotwise.laboratory.running import FIGURE_FILE
from slotwise.laboratory.values import Claim, Relation
from slotwise.laboratory.verdict import Verdict, read_verdict

PAGE = Path("docs/experiments.md")
HEAD = """# Experiments

What papers claim, held against this system: every number of a figure that we could read, and what came of it here.
`slotwise experiment run NAME` runs one, `slotwise experiment report` writes this page from the results. A folder of
[experiments](../experiments/README.md) has its own page with what the paper had and what is scaled.

| experiment | claims | hold |
| --- | ---: | ---: |
"""
COLUMNS = "| claim | policy | found | expected | verdict |\n| --- | --- | ---: | ---: | --- |\n"
SIGNS = {Relation.NEAR: "", Relation.AT_LEAST: "≥ ", Relation.AT_MOST: "≤ "}


def page(found: Iterable[Found], beside: Path) -> str:
    """The page, for a file in the folder `beside`; experiments that never ran in full say so."""
    all_of_them = [(one, read_verdict(one)) for one in found]
    lines = [_summary(one, verdict) for one, verdict in all_of_them]
    parts = [_part(one, verdict, beside) for one, verdict in all_of_them if verdict is not None]
    return "\n".join([HEAD + "\n".join(lines), *parts])


def verdict_of(claim: Claim) -> str:
    """A claim's verdict in words."""
    return "holds" if claim.holds else f"falls short by {shown(claim.shortfall)}"


def expected(claim: Claim) -> str:
    """What a claim's value is held against."""
    tolerance = f" ± {shown(claim.tolerance)}" if claim.tolerance and claim.relation is Relation.NEAR else ""
    less = f" − {shown(claim.tolerance)}" if claim.tolerance and claim.relation is Relation.AT_LEAST else ""
    more = f" + {shown(claim.tolerance)}" if claim.tolerance and claim.relation is Relation.AT_MOST else ""
    return f"{SIGNS[claim.relation]}{shown(claim.oracle)}{tolerance}{less}{more}"


def shown(number: float) -> str:
    """A number with as many digits as mean something."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _summary(one: Found, verdict: Verdict | None) -> str:
    name = one.experiment.name
    if verdict is None:
        return f"| {name}: {one.experiment.title} | never run in full | |"
    return f"| [{name}](#{name}): {one.experiment.title} | {len(verdict.claims)} | {verdict.held} |"


def _part(one: Found, verdict: Verdict, beside: Path) -> str:
    there = relpath(one.folder, beside.resolve())
    lines = [
        f"| `{claim.id}` | {claim.policy} | {shown(claim.value)} | {expected(claim)} | {verdict_of(claim)} |"
        for claim in verdict.claims
    ]
    return (
        f"\n## {verdict.name}\n\n{verdict.title}. [About it]({there}/README.md), "
        f"[figure]({there}/results/{FIGURE_FILE}), "
        f"rows in `results/rows.jsonl` there. {describe(verdict.machine)}.\n\n{COLUMNS}" + "\n".join(lines) + "\n"
    )
