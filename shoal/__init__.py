"""The front door: the `shoal` command, the demo, the doctor."""
