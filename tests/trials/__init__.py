"""The trials: faults, loads and attacks that the node must live through, run by seed and within a budget.

`python -m tests.trials --list` names the cases; mediqa_node/docs/develop.md tells how to run and to repeat them.
"""
