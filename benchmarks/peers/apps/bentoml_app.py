"""The work as a service of BentoML: batches where batching is on, and rows of several models in one."""

import bentoml
import numpy as np
import work

SETTINGS = work.SETTINGS
SLO_MS = int(min(served["slo_ms"] for served in work.WORK["models"].values()))
"""What the batcher is told to aim for."""
TRAFFIC = {
    key: value
    for key, value in {
        "timeout": None if SETTINGS["timeout_ms"] is None else SETTINGS["timeout_ms"] / 1000,
        "max_concurrency": SETTINGS["queue_max"],
    }.items()
    if value is not None
}
BATCHING = (
    {"batchable": True, "max_batch_size": SETTINGS["batch_max"], "max_latency_ms": SLO_MS}
    if SETTINGS["batch_max"] > 1
    else {}
)


@bentoml.service(workers=SETTINGS["workers"], traffic=TRAFFIC)
class Served:
    """Rows carry the number of their model in front, so that a batch may hold several."""

    def __init__(self) -> None:
        self.models = work.load_all()
        self.names = list(self.models)

    @bentoml.api(**BATCHING)
    def predict(self, x: np.ndarray) -> np.ndarray:
        """The outputs."""
        rows = x.astype(np.float32)
        return np.stack(work.run_mixed(self.models, [(self.names[int(row[0])], row[1:]) for row in rows]))
