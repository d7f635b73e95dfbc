"""The local channel: a socket and shared memory between a server and clients on the same machine.

    frames   what goes over the socket, pure          memory   shared memory of either side, and what is asked of it
    link     one connection, by callbacks             listener the socket in the file system, and who may connect
    limits   every limit, by name

Tensors lie in memory that both sides map; the socket carries frames that say where. Both ends are built from this
room: the server's door (`edges/oip/local`), which knows models, and the client (`client/local.py`).
"""
