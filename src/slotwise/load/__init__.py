"""Load on a live server: a workload's player driven in real time, whatever the way to the server, and what came of it.

    run         play: a whole load, from the server's pages to the report      plan    what is played, of which models
    sender      Sender: asks when it is due, tells the player of each answer, and notes every ending
    lines       what a sender needs of a way to a server      http, grpc, local   the ways      ways   one by its URL
    inputs      questions made of what a server tells         requests   what is sent, made once for each kind
    given       a file's samples in place of them
    ending      how a request ended, as its client sees it    tally   counts and spreads of them      spread   durations
    report      the report, its tables, two side by side      loop    an event loop with exact timers

A sender knows the wire and the client's clock, and nothing of the server's insides.
"""
