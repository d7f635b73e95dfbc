"""A verdict as tables and sentences."""

from __future__ import annotations

from harness.report import Figure, table

from soak.tally import End
from soak.verdict import Verdict


def text(verdict: Verdict) -> str:
    """The whole report, in Markdown."""
    harm = ", ".join(f"{name} {count}" for name, count in verdict.faults.items())
    return "\n\n".join(
        [
            f"\n{verdict.minutes:g} minutes, {verdict.requests:,} requests",
            table(_requests(verdict)),
            f"done to it: {harm}",
            table(_levels(verdict)),
            *(f"not flat: {remark}" for remark in verdict.remarks),
            *([] if verdict.remarks else ["flat: memory of the front, and descriptors, mappings and threads of all"]),
            *(f"FAILED: {complaint}" for complaint in verdict.complaints),
            *([] if verdict.complaints else ["passed: one answer to each request, and nothing left behind"]),
        ]
    )


def _requests(verdict: Verdict) -> list[dict[str, Figure]]:
    """A row for each way, a column for each end."""
    ways = sorted({name.partition(" ")[0] for name in verdict.counts})
    return [{"way": way, **{end.value: verdict.counts.get(f"{way} {end}", 0) for end in End}} for way in ways]


def _levels(verdict: Verdict) -> list[dict[str, Figure]]:
    return [
        {
            "role": slope.role,
            "pss_mib": round(slope.pss_mib, 1),
            "pss_mib_per_h": slope.pss_mib_per_h,
            "anon_mib_per_h": slope.anon_mib_per_h,
            "descriptors": f"{slope.descriptors_first:g} to {slope.descriptors_last:g}",
            "mappings": f"{slope.mappings_first:g} to {slope.mappings_last:g}",
            "threads": f"{slope.threads_first:g} to {slope.threads_last:g}",
        }
        for slope in verdict.slopes
    ]
