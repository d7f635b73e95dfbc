"""The Open Inference Protocol over gRPC: a process of its own, in front of the HTTP door of the same server.

`keeper` lives in the server's process and keeps the other one alive; all else here runs in that other process,
whose entry is `slotwise.grpc_door`: gRPC in Python costs several times what the engine's loop spends on a request.
"""
