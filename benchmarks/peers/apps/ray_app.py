"""The work as a deployment of Ray Serve: every replica has every model."""

import sys
import tempfile

import numpy as np
import ray
import work
from ray import serve

SETTINGS = work.SETTINGS
BATCH_MAX = SETTINGS["batch_max"]
QUEUES = (
    {} if SETTINGS["queue_max"] is None else {"max_ongoing_requests": 2, "max_queued_requests": SETTINGS["queue_max"]}
)
if BATCH_MAX > 1:
    QUEUES["max_ongoing_requests"] = 2 * BATCH_MAX


@serve.deployment(num_replicas=SETTINGS["workers"], ray_actor_options={"num_cpus": 0}, **QUEUES)
class Served:
    """Single requests, or lists where batching is on."""

    def __init__(self):
        self.models = work.load_all()

    @serve.batch(max_batch_size=BATCH_MAX, batch_wait_timeout_s=0.0)
    async def run(self, asked):
        """The outputs of a batch."""
        return work.run_mixed(self.models, asked)

    async def __call__(self, request):
        """One request."""
        told = await request.json()
        asked = told["model"], np.asarray(told["x"], np.float32)
        output = await self.run(asked) if BATCH_MAX > 1 else work.run_mixed(self.models, [asked])[0]
        return {"y": output.tolist()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(_node_ip_address="127.0.0.1", include_dashboard=False, _temp_dir=folder, log_to_driver=False)
        timeout_ms = SETTINGS["timeout_ms"]
        serve.start(
            http_options={
                "host": "127.0.0.1",
                "port": int(sys.argv[1]),
                "request_timeout_s": None if timeout_ms is None else timeout_ms / 1000,
            }
        )
        serve.run(Served.bind(), blocking=True)
