"""What a server takes of memory: its front process at the start, each idle model, each executor.

Figures are proportional shares (PSS): pages that processes share are counted once over all. Idle models are links to
one tiny file under many names, so that what is counted is the server's own books and not weights.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

from harness import processes
from harness.models import build_mlp
from harness.report import Report, is_quick
from harness.server import serve

MIB = 1 << 20
BUDGET_FRONT_MB = 120
BUDGET_MODEL_KB = 50


def main() -> None:
    quick = is_quick(__doc__)
    many = 20 if quick else 200
    report = Report("memory", is_quick=quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = measure(folder / "one", 1, [0])
        more = measure(folder / "many", many, [0])
        both = measure(folder / "both", 1, [0, 1])
    for found in (few, more, both):
        report.add(**found)
    report.print_table("PSS in MB once everything is loaded")
    model_kb = (float(more["front_mb"]) - float(few["front_mb"])) * 1024 / (many - 1)
    loaded_kb = (float(more["executors_mb"]) - float(few["executors_mb"])) * 1024 / (many - 1)
    print(f"front: {few['front_mb']} MB at the start (budget {BUDGET_FRONT_MB})")
    print(f"front, per idle model: {model_kb:.1f} KB (budget {BUDGET_MODEL_KB})")
    print(f"executor, per loaded model of 0.1 MB: {loaded_kb:.0f} KB")
    report.add(front_kb_per_model=round(model_kb, 1), executor_kb_per_model=round(loaded_kb))
    report.keep()


def measure(folder: Path, models: int, cores: list[int]) -> dict[str, float]:
    """Serve so many models on so many executors, and add the processes' shares up by role."""
    path = build_mlp(folder / "models")
    for number in range(1, models):
        link = folder / "models" / f"mlp{number}" / "1" / path.name
        link.parent.mkdir(parents=True)
        link.hardlink_to(path)
    with serve(folder / "models", folder, {"cores": cores}) as server:
        taken: dict[str, int] = defaultdict(int)
        for role, nbytes in processes.pss_bytes(server.pid).values():
            taken[role] += nbytes
    shares = {f"{role}_mb": round(taken[role] / MIB, 1) for role in processes.ROLES}
    return {"models": models, "executors": len(cores), **shares, "sum_mb": round(sum(taken.values()) / MIB, 1)}


if __name__ == "__main__":
    main()
