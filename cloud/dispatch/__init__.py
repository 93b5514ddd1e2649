"""Dispatching, compiled."""
