"""The work as a server of LitServe: every worker has every model."""

import sys

import litserve
import numpy as np
import work

SETTINGS = work.SETTINGS
BATCH_MAX = SETTINGS["batch_max"]


class Api(litserve.LitAPI):
    """Runs single requests, or lists where batching is on."""

    def setup(self, device):
        """Load."""
        self.models = work.load_all()

    def decode_request(self, request):
        """The model's name and its row."""
        return request["model"], np.asarray(request["x"], np.float32)

    def batch(self, inputs):
        """A batch is the list of its requests; they may be for several models."""
        return inputs

    def predict(self, x):
        """The outputs."""
        return work.run_mixed(self.models, x if BATCH_MAX > 1 else [x])

    def unbatch(self, output):
        """They are a list already."""
        return output

    def encode_response(self, output):
        """One row, as JSON."""
        return {"y": (output if BATCH_MAX > 1 else output[0]).tolist()}


if __name__ == "__main__":
    timeout_ms = SETTINGS["timeout_ms"]
    batching = {"max_batch_size": BATCH_MAX, "batch_timeout": SETTINGS["batch_wait_ms"] / 1000} if BATCH_MAX > 1 else {}
    limits = {} if timeout_ms is None else {"timeout": timeout_ms / 1000}
    server = litserve.LitServer(
        Api(**batching), accelerator="cpu", workers_per_device=SETTINGS["workers"], track_requests=False, **limits
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning"
    )
