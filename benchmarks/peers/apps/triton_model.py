"""One model for Triton's backend in Python. The folder that the file lies in says which."""

import numpy as np
import triton_python_backend_utils as pb_utils
import work


class TritonPythonModel:
    """Batches come as lists of requests."""

    def initialize(self, args):
        """Load."""
        self.model = work.Model(args["model_name"])

    def execute(self, requests):
        """The outputs, request by request."""
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        rows = self.model.run(np.concatenate(inputs))
        ends = np.cumsum([len(tensor) for tensor in inputs])[:-1]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", part)]) for part in np.split(rows, ends)]
