#!/usr/bin/env bash
# Makes a clone ready to run: servers from Debian's packages where they are missing, a .venv with the pinned
# dependencies, and the project itself in editable form. Safe to run again at any time; quick when nothing changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

missing_packages() {
    command -v redis-server >/dev/null || echo redis-server
    [ -e /usr/share/java/zookeeper.jar ] || [ -n "${TALLYSTICK_ZOOKEEPER_CLASSPATH:-}" ] || echo zookeeper
    command -v java >/dev/null || echo default-jre-headless
    # Debian splits both out of the interpreter's package.
    "$1" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

install_packages() {
    local root=()
    command -v apt-get >/dev/null || die "please install: $* (redis-server 7.0 or newer; ZooKeeper 3.8 with Java," \
        "its jars named in TALLYSTICK_ZOOKEEPER_CLASSPATH). Only Debian's apt-get is known to this script."
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "not root and no sudo: ask an administrator to run" \
            "'apt-get install --no-install-recommends $*'"
        root=(sudo)
    fi
    say "installing from Debian's packages: $*"
    "${root[@]}" apt-get -q update || say "apt-get update failed; trying with the lists at hand"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
        install --no-install-recommends "$@"
    # The packages start services that nobody asked for; the cluster starts its own. Only what came with this
    # installation is stopped: a service that was here before belongs to somebody.
    local name
    for name in "$@"; do
        case "$name" in
        redis-server | zookeeper)
            if [ -d /run/systemd/system ]; then
                "${root[@]}" systemctl disable --now "$name" >/dev/null 2>&1 || true
            elif [ -x "/etc/init.d/$name" ]; then
                "${root[@]}" "/etc/init.d/$name" stop >/dev/null 2>&1 || true
            fi
            ;;
        esac
    done
}

check_redis() {
    local version
    version=$(redis-server --version | sed -n 's/.*v=\([0-9]*\)\..*/\1/p')
    [ "${version:-0}" -ge 7 ] || die "redis-server 7.0 or newer is needed (functions), found: $(redis-server --version)"
}

# What an existing .venv must have been made from. The folder is part of it: an editable install holds its path.
fingerprint() {
    { "$1" --version; pwd; cat constraints.txt pyproject.toml; } | sha256sum
}

make_venv() {
    say "making .venv (the first time takes a minute)"
    rm -rf .venv
    "$1" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    fingerprint "$1" >.venv/fingerprint
}

python=$(find_python) || die "Python 3.11 or newer is needed (or name one: PYTHON=/path/to/python3)"
mapfile -t missing < <(missing_packages "$python")
[ "${#missing[@]}" -eq 0 ] || install_packages "${missing[@]}"
check_redis
if [ "$(cat .venv/fingerprint 2>/dev/null)" != "$(fingerprint "$python")" ]; then
    make_venv "$python"
fi
