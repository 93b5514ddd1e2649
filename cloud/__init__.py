"""The fleet: ingest, stores, scheduling, dispatch, monitor."""
