"""Baselines: the seven networks of the paper's Table 1, and two methods without a network.

`baseline` makes a network; `noise` and `statistics_svr` are the other two.
"""

from training.baselines.networks import NETWORKS, baseline

__all__ = ["NETWORKS", "baseline"]
