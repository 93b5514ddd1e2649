"""The same optimiser step in torch, as its users write it: double DQN, Huber, clipping, Adam, a target that follows.

    step = torch_step(network, settings, memory, seed=1)       # ImportError without torch
    loss = step()

Tensors of the memory are made once, beforehand; a step draws its batch, as ours does. One thread.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from edge.learner import Memory
from edge.learning import LearnerSettings
from messages.network import Network

VERSION = torch.__version__


def torch_step(network: Network, settings: LearnerSettings, memory: Memory, *, seed: int) -> Callable[[], float]:
    """One step at a call; the loss."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    online, target = _net(network), _net(network)
    target.load_state_dict(online.state_dict())
    adam = torch.optim.Adam(online.parameters(), lr=settings.rate)
    known = len(memory)
    states, after = torch.from_numpy(memory.states[:known]), torch.from_numpy(memory.after[:known])
    actions = torch.from_numpy(memory.actions[:known]).long()
    rewards = torch.from_numpy(memory.rewards[:known]) / settings.scale
    loss_of = nn.SmoothL1Loss()

    def step() -> float:
        chosen = torch.randint(known, (settings.batch,))
        s, s2, a, r = states[chosen], after[chosen], actions[chosen], rewards[chosen]
        with torch.no_grad():
            best = online(s2).argmax(dim=1, keepdim=True)
            wanted = r + settings.gamma * target(s2).gather(1, best).squeeze(1)
        q = online(s).gather(1, a.unsqueeze(1)).squeeze(1)
        loss = loss_of(q, wanted)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(online.parameters(), settings.clip)
        adam.step()
        with torch.no_grad():
            for theirs, ours in zip(target.parameters(), online.parameters(), strict=True):
                theirs.lerp_(ours, settings.tau)
        return loss.item()

    return step


def _net(network: Network) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = network.inputs
    for units in network.hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, network.outputs))
