"""What a network begins with: nodes that know nothing, and the first version that the cloud makes of a seed.

initial(network, np.random.default_rng(7))       # (P,) float32, the same for the same seed
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from messages.network import Network


def initial(network: Network, rng: np.random.Generator) -> NDArray[np.float32]:
    """Parameters to begin with, (P,): He et al. (2015) uniform for weights, zero biases; a small last layer."""
    theta = np.zeros(network.size, np.float32)
    for one in network.slices:
        if len(one.shape) == 2:
            bound = np.sqrt(6.0 / one.shape[0]) * (1.0 if one.name.startswith("body") else 0.1)
            theta[one.start : one.stop] = rng.uniform(-bound, bound, one.stop - one.start)
    return theta
