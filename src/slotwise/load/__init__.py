"""Load on a live server: a workload's player driven in real time, whatever the way to the server, and what came of it.

    sender      Sender: asks when it is due, tells the player of each answer, and notes every ending
    lines       what a sender needs of a way to a server      http, grpc, local   the three ways
    requests    what is sent for an arrival, made once for each kind of them
    ending      how a request ended, as its client sees it

A sender knows the wire and the client's clock, and nothing of the server's insides.
"""
