# Sourced by the other scripts: makes the checkout's .venv match requirements.lock and pyproject.toml.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv"

# Prints the path of a Python 3.11 or newer, python3.11 first: the lock file's versions are tested with that one.
find_python() {
    local name
    for name in python3.11 python3 python; do
        # Asked rather than looked up: a version manager's stand-in exists without a Python behind it.
        if "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 </dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "error: no Python 3.11 or newer with its venv module was found as python3.11 or python3" >&2
    echo "hint: install Python 3.11 (on Debian and Ubuntu also python3.11-venv) and run this again" >&2
    return 1
}

# What the environment depends on: the pins, the packaging, and the folder, which is written into its scripts.
wanted_stamp() {
    cat "$root/requirements.lock" "$root/pyproject.toml" - <<<"$root" | cksum
}

environment_is_current() {
    [[ -x "$venv/bin/search" && -f "$venv/.stamp" && "$(<"$venv/.stamp")" == "$(wanted_stamp)" ]]
}

install_environment() {
    local python
    # Another run may have finished the work while this one waited for the lock.
    if environment_is_current; then return; fi
    python="$(find_python)" || return
    echo "setting up $venv from requirements.lock (once; takes a few minutes) ..." >&2
    rm -f "$venv/.stamp"
    "$python" -m venv "$venv" &&
        pip_quietly install -r "$root/requirements.lock" &&
        pip_quietly install --no-deps --no-build-isolation -e "$root" &&
        wanted_stamp >"$venv/.stamp" && return
    echo "error: $venv could not be set up; the reason is above" >&2
    echo "hint: check the network and the free disk space, then run this again; it goes on where it stopped" >&2
    return 1
}

pip_quietly() {
    "$venv/bin/python" -m pip --quiet --quiet --no-input --disable-pip-version-check "$@" >&2
}

# Two runs at once are fine: the second waits for the first. The lock is gone when the parentheses close, so that a
# long search does not hold it.
ensure_environment() {
    if environment_is_current; then return; fi
    (
        if command -v flock >/dev/null; then flock 9; fi
        install_environment </dev/null
    ) 9<"$root/requirements.lock"
}
