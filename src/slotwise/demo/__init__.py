"""The show piece: a real server, real models, load and overload, one killed executor, and a picture of it all.

    show        runs the demo from beginning to end       server      the server as a process of its own
    mix         which models are asked how often          load        calibration, the phases, the kill
    report      numbers, the verdict, the table           picture     the journal as a figure and a trace

Everything is measured from outside, over HTTP, as any client could; nothing is looked up in the server's insides
but its published status and its journal.
"""
