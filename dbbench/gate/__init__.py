"""The regression gate: what a suite's cells must cost, in a file that git keeps, and a check that names the culprit.

`baseline` reads and writes that file, `cells` takes the same figures from a run or from fake tensors, `check` compares
the two into one `result`, and `show`, `github` and `junit` put that before people and machines.
"""
