#!/usr/bin/env bash
# Makes a clone ready to run: servers and a C compiler from Debian's packages where they are missing, a .venv with the
# pinned dependencies, the project's two distributions in editable form, and the shard engine. Safe to run again at any
# time; quick when nothing changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            # The interpreter behind a .venv that is active: the one to make ours with.
            "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'
            return
        fi
    done
    return 1
}

missing_packages() {
    command -v redis-server >/dev/null || echo redis-server
    # Debian splits the headers of the C library out of the compiler's package.
    command -v "${CC:-gcc}" >/dev/null || command -v clang >/dev/null || printf '%s\n' gcc libc6-dev
    [ -e /usr/share/java/zookeeper.jar ] || [ -n "${TALLYSTICK_ZOOKEEPER_CLASSPATH:-}" ] || echo zookeeper
    command -v java >/dev/null || echo default-jre-headless
    # Debian splits both out of the interpreter's package.
    "$1" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

install_packages() {
    local root=()
    command -v apt-get >/dev/null || die "please install: $* (redis-server 7.0 or newer; gcc or clang; ZooKeeper 3.8 with Java," \
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
    [ "${version:-0}" -ge 7 ] || die "redis-server 7.0 or newer is needed to load the shard engine, found: $(redis-server --version)"
}

# An editable install holds the folder's path, and a .venv its interpreter's: another of either needs a new one.
venv_fingerprint() {
    { "$1" --version; pwd; } | sha256sum
}

packages_fingerprint() {
    cat constraints.txt pyproject.toml proto/pyproject.toml | sha256sum
}

make_venv() {
    say "making .venv"
    rm -rf .venv
    "$1" -m venv .venv
    venv_fingerprint "$1" >.venv/fingerprint
}

install_project() {
    local pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check)
    say "installing the pinned dependencies (the first time takes a minute)"
    "${pip[@]}" install --require-hashes -r constraints.txt
    "${pip[@]}" install --no-deps --no-build-isolation -e ./proto -e .
    packages_fingerprint >.venv/packages-fingerprint
}

# One at a time in one folder: `make lint` and `make test` side by side must not both make a .venv.
exec 9<.
flock 9
python=$(find_python) || die "Python 3.11 or newer is needed (or name one: PYTHON=/path/to/python3)"
mapfile -t missing < <(missing_packages "$python")
[ "${#missing[@]}" -eq 0 ] || install_packages "${missing[@]}"
check_redis
[ "$(cat .venv/fingerprint 2>/dev/null)" = "$(venv_fingerprint "$python")" ] || make_venv "$python"
[ "$(cat .venv/packages-fingerprint 2>/dev/null)" = "$(packages_fingerprint)" ] || install_project
.venv/bin/python -m shard_node.engine >/dev/null || die "the shard engine was not built"
