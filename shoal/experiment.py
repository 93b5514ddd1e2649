"""`shoal experiment NAME`: claims put to the test, each with its model stated before the first run.

    shoal experiment latency                    decisions on the node against decisions in the cloud
    shoal experiment federation                 learning together against alone, for alike cells and unlike ones

Each prints a table, writes a report and, with --json, one JSON line per figure. Exit codes: 0 it ran, whatever came
out; 1 it could not be carried out; 2 wrong usage.
"""

from __future__ import annotations

import typer

from shoal.experiments.federation import federation
from shoal.experiments.latency import latency

experiment = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@experiment.callback()
def _group() -> None:
    """Claims put to the test: a table, a report, figures for programs."""


experiment.command()(latency)
experiment.command()(federation)
