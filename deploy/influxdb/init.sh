#!/bin/bash
# Run once by the InfluxDB image, after it has set up its first bucket: a reader for Grafana. The user `grafana` may
# read that bucket in InfluxQL and nothing else. The mapping of InfluxQL's database is made by `shoal cloud --init-store`.
set -eu
influx v1 auth create \
    --username grafana --password "$INFLUXDB_GRAFANA_PASSWORD" --read-bucket "$DOCKER_INFLUXDB_INIT_BUCKET_ID"
