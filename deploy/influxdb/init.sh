#!/bin/bash
# Run once by the InfluxDB image, after it has set up its first bucket: InfluxQL for Grafana, with a reader of its own.
# The database `shoal` of InfluxQL is that bucket; the user `grafana` may read it and nothing else.
set -eu
bucket=$DOCKER_INFLUXDB_INIT_BUCKET_ID
influx v1 dbrp create --db shoal --rp autogen --default --bucket-id "$bucket"
influx v1 auth create --username grafana --password "$INFLUXDB_GRAFANA_PASSWORD" --read-bucket "$bucket"
