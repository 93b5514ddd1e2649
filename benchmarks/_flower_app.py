"""The app that `flower.py` has Flower run: nodes send back what they got; the one that is `broken` sends NaN.

It runs in Flower's own environment, as `app.py` of an app folder. The strategy is FedAvg as it comes, without
evaluation. What each round took, and whether its model has numbers, goes to the file `out`, one JSON object a line.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Nothing is learned."""
    vector = message.content["arrays"]["vector"].numpy()
    if context.node_config["name"] == context.run_config["broken"]:
        vector = np.full_like(vector, np.nan)
    arrays, metrics = ArrayRecord({"vector": Array(vector)}), MetricRecord({"num-examples": 1})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Rounds, and what they took."""
    settings, nodes = context.run_config, int(context.run_config["nodes"])
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_evaluate_nodes=0, min_available_nodes=nodes)
    start = np.random.default_rng(1).normal(0, 0.1, int(settings["parameters"])).astype(np.float32)
    with Path(str(settings["out"])).open("a") as out:
        before = time.time()

        def after(number: int, made: ArrayRecord) -> None:
            nonlocal before
            now, finite = time.time(), bool(np.isfinite(made["vector"].numpy()).all())
            line = {"round": number, "took_s": now - before, "finite": finite}
            print(json.dumps(line), file=out, flush=True)
            before = now

        arrays = ArrayRecord({"vector": Array(start)})
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(settings["rounds"]), evaluate_fn=after)
