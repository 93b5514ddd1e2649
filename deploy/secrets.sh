#!/bin/sh
# Make what compose.yaml needs and no repository may hold: passwords, access rules and the plant file.
#
#   sh deploy/secrets.sh [PLANT]      PLANT: a plant file; absent: the ceramic plant, with faster telemetry
#
# Writes, readable by you alone but for the plant file:
#   .env                        passwords and tokens, as Compose reads them
#   deploy/run/credentials      every MQTT user and password, `user:password`, to hand out to devices
#   deploy/run/mosquitto.passwd the same as hashes;  deploy/run/mosquitto.acl  who may read and write what
#   deploy/run/plant.toml       a copy of PLANT, yours to edit
# Again changes nothing that is there: passwords stay, a new node or device of the plant gets one.
set -eu
umask 077
cd "$(dirname "$0")/.."
run=deploy/run
mosquitto_image=eclipse-mosquitto:2.0.22

die() {
    echo "deploy/secrets.sh: $*" >&2
    exit 1
}

# 192 random bits in letters and digits that no shell, URL or TOML file minds.
secret() { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

has_docker() { docker info >/dev/null 2>&1; }

# `shoal`, from this checkout's environment, the PATH, or an image built here.
run_shoal() {
    for place in .venv/bin/shoal "$(command -v shoal 2>/dev/null || :)"; do
        if [ -x "$place" ]; then
            "$place" "$@"
            return
        fi
    done
    has_docker || die "needs shoal (make setup) or a running Docker"
    docker build --quiet --build-arg EXTRAS=edge --tag shoal-edge:local . >/dev/null
    docker run --rm --network none --volume "$PWD:/src:ro" --workdir /src --user "$(id -u):$(id -g)" shoal-edge:local "$@"
}

# Replace the passwords in a file by their hashes; nothing secret is on a command line.
hash_passwords() {
    if command -v mosquitto_passwd >/dev/null 2>&1; then
        mosquitto_passwd -U "$1"
        return
    fi
    has_docker || die "needs mosquitto_passwd (apt-get install mosquitto) or a running Docker"
    docker run --rm --network none --volume "$PWD/$run:/run/shoal" --user "$(id -u):$(id -g)" \
        "$mosquitto_image" mosquitto_passwd -U "/run/shoal/$(basename "$1")"
}

# The value of a variable in the .env that is there.
kept() { [ ! -f .env ] || sed -n "s/^$1=//p" .env | head -n 1; }

variable() {
    value=$(kept "$1")
    echo "$1=${value:-$(secret)}"
}

password_of() { sed -n "s|^$1:||p" "$run/credentials"; }

[ $# = 0 ] || [ -f "$1" ] || die "$1: no such plant file"
# Before anything is written.
{ [ -x .venv/bin/shoal ] || command -v shoal >/dev/null 2>&1 || has_docker; } || die "needs shoal (make setup) or a running Docker"
{ command -v mosquitto_passwd >/dev/null 2>&1 || has_docker; } ||
    die "needs mosquitto_passwd (apt-get install mosquitto) or a running Docker"

mkdir -p "$run"
if [ $# -gt 0 ]; then
    cp "$1" "$run/plant.toml"
elif [ ! -f "$run/plant.toml" ]; then
    sed -e 's/^sample_s = .*/sample_s = 5/' -e 's/^burst_s = .*/burst_s = 10/' \
        firmware_sim/plants/ceramic.toml >"$run/plant.toml"
fi
chmod 644 "$run/plant.toml" # the processes in the containers are not you
site=$(sed -n 's/^site = "\(.*\)"$/\1/p' "$run/plant.toml" | head -n 1)
[ -n "$site" ] || die "$run/plant.toml: no line site = \"…\""

# The rules of the topic map, and one user more: the simulated machines, who are all devices of the site at once.
run_shoal topics --acl "$run/plant.toml" >"$run/mosquitto.acl.new"
cat >>"$run/mosquitto.acl.new" <<RULES

user role.sim
topic write shoal/v1/$site/+/raw/#
topic read shoal/v1/$site/+/act/#
topic write shoal/v1/$site/site/up/order
RULES
mv "$run/mosquitto.acl.new" "$run/mosquitto.acl"

touch "$run/credentials"
for user in $(sed -n 's/^user //p' "$run/mosquitto.acl"); do
    [ -n "$(password_of "$user")" ] || echo "$user:$(secret)" >>"$run/credentials"
done
cp "$run/credentials" "$run/mosquitto.passwd.new"
hash_passwords "$run/mosquitto.passwd.new"
mv "$run/mosquitto.passwd.new" "$run/mosquitto.passwd"

{
    echo "# Made by deploy/secrets.sh. Secret: not for the repository, not for a chat."
    echo "SHOAL_SITE=$site"
    echo "MQTT_CLOUD_PASSWORD=$(password_of role.cloud)"
    echo "MQTT_OPERATOR_PASSWORD=$(password_of role.operator)"
    echo "MQTT_SIM_PASSWORD=$(password_of role.sim)"
    sed -n "s|^\($site/[^/:]*\):.*|\1|p" "$run/credentials" | while read -r node; do
        echo "MQTT_NODE_$(basename "$node" | tr 'a-z-' 'A-Z_')_PASSWORD=$(password_of "$node")"
    done
    variable INFLUXDB_ADMIN_PASSWORD
    variable INFLUXDB_TOKEN
    variable INFLUXDB_GRAFANA_PASSWORD
    variable GRAFANA_ADMIN_PASSWORD
} >.env.new
mv .env.new .env
echo "deploy/secrets.sh: .env and $run are ready for site $site: docker compose up" >&2
echo "deploy/secrets.sh: Grafana is at http://127.0.0.1:3000, user admin, password GRAFANA_ADMIN_PASSWORD in .env" >&2
