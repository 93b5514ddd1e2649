#!/bin/sh
# Set up one checkout: .venv with the locked dependencies, and servers from the system's packages.
#
#   sh deploy/setup.sh EXTRA [mosquitto | stores | tests]     EXTRA: edge, sim, cloud, all, dev or bench (see pyproject.toml)
#
# stores: Mosquitto, and InfluxDB 1.x and VictoriaMetrics, which the tests start on free ports of their own, and
# on Linux strace, with which they cut the power of a disk. tests: the stores, and Chromium, in which they open the
# pages; where it cannot be had they say so and leave the pages out.
#
# What is in place is left alone, so a second run takes milliseconds. Packages of the system are installed
# only where missing, only with apt-get, and only after saying so; no service is left running or enabled.
# PYTHON=/path/to/python3 chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
extra=${1:-all}
servers=${2:-}
venv=.venv

say() { echo "shoal: $*" >&2; }
die() {
    say "$*"
    exit 1
}

# --- system packages ----------------------------------------------------------------------------------------

# How to run apt-get here: nothing (root), sudo, or failure. Without a terminal sudo must not ask.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ -t 0 ] && [ -z "${CI:-}" ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

can_apt() {
    command -v apt-get >/dev/null 2>&1 || return 1
    [ "$(id -u)" = 0 ] && return 0
    command -v sudo >/dev/null 2>&1 || return 1
    { [ -t 0 ] && [ -z "${CI:-}" ]; } || sudo -n true 2>/dev/null
}

# Install packages; what apt-get says is shown only when it fails.
apt_install() {
    said=$(mktemp)
    if {
        as_root apt-get update -qq || echo "apt-get update failed; going on with the package lists at hand"
        as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l \
            apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" </dev/null
    } >"$said" 2>&1; then
        rm -f "$said"
    else
        tail -n 20 "$said" >&2
        rm -f "$said"
        return 1
    fi
}

# --- Python -------------------------------------------------------------------------------------------------

suits() { # Python 3.11 or newer
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        suits "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.11 or newer"
        echo "$PYTHON"
        return
    fi
    for name in python3 python3.13 python3.12 python3.11 python3.14; do
        if suits "$name"; then
            echo "$name"
            return
        fi
    done
}

need_python() {
    python=$(find_python)
    [ -n "$python" ] && return
    if can_apt; then
        say "no Python 3.11 or newer found: installing the system's packages python3 and python3-venv (apt-get)"
        apt_install python3 python3-venv || die "apt-get failed; run: sudo apt-get install python3 python3-venv"
        python=$(find_python)
        [ -n "$python" ] && return
    fi
    die "Python 3.11 or newer is needed: sudo apt-get install python3 python3-venv (Debian 12, Ubuntu 24.04," \
        "Raspberry Pi OS 12 or newer), or set PYTHON=/path/to/python3"
}

works() { [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

make_venv() {
    works && return
    need_python
    say "making $venv with $("$python" --version 2>&1)"
    rm -rf "$venv"
    if "$python" -c 'import ensurepip, venv' 2>/dev/null && "$python" -m venv "$venv" >&2; then return; fi
    # Debian splits ensurepip off into python3-venv. Other tools can do without it.
    rm -rf "$venv"
    if "$python" -m virtualenv --version >/dev/null 2>&1; then
        "$python" -m virtualenv --quiet "$venv" >&2 && return
    elif command -v uv >/dev/null 2>&1; then
        uv venv --quiet --seed --python "$python" "$venv" >&2 && return
    elif can_apt; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        say "this Python cannot make virtual environments: installing the system's package python3-venv (apt-get)"
        if { apt_install "python$version-venv" || apt_install python3-venv; } && "$python" -m venv "$venv" >&2; then
            return
        fi
    fi
    rm -rf "$venv"
    die "this Python cannot make virtual environments: sudo apt-get install python3-venv, then again"
}

# The stamp holds what the environment was made from; the place too, because scripts in .venv name it.
wanted() {
    echo "$PWD"
    cat pyproject.toml requirements.lock | cksum
}

fresh() {
    for stamp in "$venv/.shoal-$extra" "$venv/.shoal-all" "$venv/.shoal-dev"; do
        [ "$extra" != bench ] || [ "$stamp" = "$venv/.shoal-bench" ] || continue
        case $stamp in *-all) [ "$extra" != dev ] || continue ;; esac
        [ -x "$venv/bin/shoal" ] && [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted)" ] && return
    done
    return 1
}

install_dependencies() {
    fresh && return
    if [ -d "$venv" ] && ! grep -qsxF "$PWD" "$venv"/.shoal-* && ls "$venv"/.shoal-* >/dev/null 2>&1; then
        say "this checkout has moved: $venv is made again"
        rm -rf "$venv"
    fi
    make_venv
    case $extra in
    edge | sim) ;;
    *)
        "$venv/bin/python" -c 'import struct, sys; sys.exit(struct.calcsize("P") != 8)' ||
            die "a 64-bit system is needed: OR-Tools has no 32-bit build. An edge node alone runs here: sh deploy/setup.sh edge"
        ;;
    esac
    say "installing the locked dependencies of shoal[$extra] into $venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --prefer-binary \
        -c requirements.lock -e ".[$extra]" </dev/null >&2 ||
        die "pip could not install the dependencies (see above): is the package index reachable? Then run this again"
    wanted >"$venv/.shoal-$extra"
}

# --- servers ------------------------------------------------------------------------------------------------

has() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin:/usr/local/opt/mosquitto/sbin" command -v "$1" >/dev/null 2>&1
}

# What the programs are, by their Debian package; and how others get them.
program_of() { case $1 in influxdb) echo influxd ;; *) echo "$1" ;; esac; }
cure_of() {
    case $1 in
    mosquitto) echo "Mosquitto, the MQTT broker: sudo apt-get install mosquitto (Debian), sudo dnf install mosquitto (Fedora), brew install mosquitto (macOS)" ;;
    influxdb) echo "InfluxDB 1.x, for the tests: sudo apt-get install influxdb (Debian), brew install influxdb@1 (macOS), or influxd from influxdata.com on the PATH" ;;
    strace) echo "strace, for simulated power cuts: sudo apt-get install strace (Debian), sudo dnf install strace (Fedora)" ;;
    victoria-metrics) echo "VictoriaMetrics, for the tests: sudo apt-get install victoria-metrics (Debian), brew install victoriametrics (macOS, as victoria-metrics on the PATH)" ;;
    esac
}

# Install packages of servers where missing; their services are neither started nor enabled.
install_servers() {
    missing=
    for package in "$@"; do has "$(program_of "$package")" || missing="$missing $package"; done
    [ -n "$missing" ] || return 0
    for package in $missing; do say "missing: $(cure_of "$package")"; done
    command -v apt-get >/dev/null 2>&1 || die "there is no apt-get here: install it by hand, then run this again"
    can_apt || die "installing it needs root: do so by hand, then run this again"
    say "installing the system's packages$missing (apt-get)."
    say "Their services are neither started nor enabled; Shoal starts private servers when it needs them."
    # Debian starts a service on installation unless policy-rc.d says no. One that is there already stays.
    policy=/usr/sbin/policy-rc.d
    ours=
    if [ ! -e "$policy" ]; then
        ours=$policy
        trap '[ -z "$ours" ] || as_root rm -f "$ours"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy"
    fi
    ok=1
    # shellcheck disable=SC2086
    apt_install $missing || ok=0
    [ -z "$ours" ] || as_root rm -f "$ours"
    ours=
    # They were not there before, so services of these names are ones this installation brought.
    for package in $missing; do
        if [ -d /run/systemd/system ]; then as_root systemctl stop "$package.service" >/dev/null 2>&1 || :; fi
        if command -v systemctl >/dev/null 2>&1; then
            as_root systemctl disable "$package.service" >/dev/null 2>&1 || :
        elif command -v update-rc.d >/dev/null 2>&1; then
            as_root update-rc.d "$package" disable >/dev/null 2>&1 || :
        fi
    done
    for package in $missing; do
        [ "$ok" = 1 ] && has "$(program_of "$package")" || die "apt-get could not install $package (see above); by hand: $(cure_of "$package")"
    done
}

# Not every system has it as a package (Ubuntu brings it as a snap), and only the tests of pages need it.
install_browser() {
    for browser in chromium chromium-browser google-chrome; do ! has "$browser" || return 0; done
    if can_apt; then
        say "installing the system's package chromium (apt-get), for the tests of pages"
        apt_install chromium && has chromium && return 0
    fi
    say "missing: Chromium, for the tests of pages, which are left out: sudo apt-get install chromium (Debian)"
}

case $extra in
edge | sim | cloud | all | dev | bench) ;;
*) die "unknown extra '$extra': edge, sim, cloud, all, dev or bench" ;;
esac
install_dependencies
case $servers in
'') ;;
mosquitto) install_servers mosquitto ;;
stores | tests)
    case $(uname) in Linux) tracer=strace ;; *) tracer= ;; esac
    install_servers mosquitto influxdb victoria-metrics $tracer
    [ "$servers" = stores ] || install_browser
    ;;
*) die "unknown servers '$servers': mosquitto, stores, or tests" ;;
esac
