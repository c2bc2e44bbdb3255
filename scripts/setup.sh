# Sourced by demo, test, check and verify: makes .venv and puts the package with some extras into it.
# shellcheck shell=bash
#
#   setup_python EXTRA...      .venv with `pip install -e .[EXTRA,…]`; does nothing when that was done already
#   setup_compiler             a C compiler: $CC, cc, clang or gcc; otherwise ziglang from PyPI
#   setup_apt COMMAND PACKAGE… Debian packages, where COMMAND is missing and this user may install them
#   setup_data                 BITLOOP_DATA, where MNIST lies beside the checkout

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${BITLOOP_VENV:-$ROOT/.venv}
PYTHON=$VENV/bin/python

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in ${BITLOOP_PYTHON:+"$BITLOOP_PYTHON"} python3 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.10 or newer is needed and was not found. Install python3 (Debian: apt install python3 python3-venv), or name one in BITLOOP_PYTHON."
}

make_venv() {
    local base
    base=$(find_python) || exit 1
    say "making $VENV with $("$base" --version)"
    rm -rf "$VENV"
    if ! "$base" -m venv "$VENV" 2>/dev/null; then
        rm -rf "$VENV"
        setup_apt "" python3-venv || true
        "$base" -m venv "$VENV" || die "python3 -m venv failed. On Debian and Ubuntu: sudo apt install python3-venv"
    fi
}

setup_python() {
    local extras wanted stamp
    extras=$(printf '%s\n' "$@" | sort -u | paste -sd, -)
    [ -x "$PYTHON" ] && "$PYTHON" -c '' 2>/dev/null || make_venv
    stamp=$VENV/.bitloop-$(printf '%s' "${extras:-core}" | tr ',' '-')
    wanted=$(cat "$ROOT/pyproject.toml" <(printf '%s' "$ROOT $extras") | sha256sum | cut -d' ' -f1)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        say "installing bitloop${extras:+[$extras]} into $VENV"
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -e "$ROOT${extras:+[$extras]}" >&2 ||
            die "pip could not install what bitloop needs (see above). Is there a network, or a package mirror in pip's configuration?"
        printf '%s' "$wanted" >"$stamp"
    fi
}

setup_compiler() {
    local candidate
    for candidate in ${CC:+"$CC"} cc clang gcc; do
        command -v "${candidate%% *}" >/dev/null 2>&1 && return
    done
    "$PYTHON" -m ziglang version >/dev/null 2>&1 && return
    say "no C compiler on this machine: fetching ziglang from PyPI"
    setup_python cc
}

setup_apt() {
    local command=$1 runner=()
    shift
    [ -n "$command" ] && command -v "$command" >/dev/null 2>&1 && return
    command -v apt-get >/dev/null 2>&1 || return 1
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || return 1
        runner=(sudo -n)
    fi
    say "installing Debian packages: $*"
    "${runner[@]}" apt-get update -qq >/dev/null 2>&1 || true
    "${runner[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

setup_data() {
    local place
    [ -n "${BITLOOP_DATA:-}" ] && return
    for place in "$ROOT/../shared/mnist"; do
        if [ -e "$place/t10k-images-idx3-ubyte.gz" ]; then
            BITLOOP_DATA=$(cd "$place" && pwd)
            export BITLOOP_DATA
            return
        fi
    done
}
