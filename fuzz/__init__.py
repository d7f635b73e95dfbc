"""Hostile input, by the million: every way into the product is a target, and every input that found a fault is kept.

    python -m fuzz http-body --minutes 10
    python -m fuzz all --minutes 60

To be run by hand. Targets are in `targets`, a file each; `mutate` makes inputs of others, `guided` and `loop` run them.
What once found a fault lies in `corpus/TARGET`, and tests/edges/test_fuzz_corpus.py runs it again with every change.
"""
