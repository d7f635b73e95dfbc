"""Executors on other machines, over TCP.

A node is a process that hosts a fleet of its own (`agent`) and is ordered about by one front, which has a `remote` for
each node; `joined` makes one fleet of those and of the one on this machine.

    messages  what the two say        link     frames over a connection     clock   what a node's clock is ahead
    secret    who may order about     budget   what the link can carry      weights files of models, by their digests
"""
