"""The Open Inference Protocol as we serve it, held against Triton's own server and against standard clients."""
