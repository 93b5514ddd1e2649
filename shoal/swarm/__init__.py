"""The swarm run to its end: agents, floor and disturbances, in simulation or over a broker."""
