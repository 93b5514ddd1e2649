"""Dispatching in plain Python: the state of a shop, what awards do to it, rules, and a judge that looks ahead."""
