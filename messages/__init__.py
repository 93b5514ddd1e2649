"""What both sides agree on: contracts, topics, the plant and plan model, the clock and the bus."""
