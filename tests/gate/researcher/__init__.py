"""A researcher's project: a network and a training method of their own, measured and gated by dbbench.

``tests/regressions.yaml`` seeds regressions into copies of it.
"""
