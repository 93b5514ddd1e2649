"""Machines that do not exist: signals, faults, plants, firmware loops."""
