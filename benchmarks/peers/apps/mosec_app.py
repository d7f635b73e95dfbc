"""The work as a server of mosec: every worker has every model, and rows may travel as bare bytes."""

import json

import mosec
import numpy as np
import work

SETTINGS = work.SETTINGS
BATCH_MAX = SETTINGS["batch_max"]
WIDEST_NAME = 32
"""A binary request is a model's name, padded to so many bytes, and the bytes of one row."""


class Worker(mosec.Worker):
    """Runs whatever the queue hands over: a list where batching is on, one request where it is not."""

    def __init__(self):
        super().__init__()
        self.models = work.load_all()

    def deserialize(self, data):
        """The model's name and its row."""
        if work.IS_BINARY:
            return data[:WIDEST_NAME].rstrip().decode(), np.frombuffer(data, np.float32, offset=WIDEST_NAME)
        asked = json.loads(data)
        return asked["model"], np.asarray(asked["x"], np.float32)

    def serialize(self, data):
        """The output, in the form of the request."""
        return data.tobytes() if work.IS_BINARY else json.dumps({"y": data.tolist()}).encode()

    def forward(self, data):
        """The outputs."""
        if BATCH_MAX == 1:
            return work.run_mixed(self.models, [data])[0]
        return work.run_mixed(self.models, data)


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(
        Worker, num=SETTINGS["workers"], max_batch_size=BATCH_MAX, max_wait_time=max(1, int(SETTINGS["batch_wait_ms"]))
    )
    server.run()
