#!/bin/sh
# Builds .venv from requirements.lock. Called by `make`; needs a Python 3.12 or uv, and nothing else.
# The project itself is not installed: every command runs from the repository's root.
set -eu

find_python() {
    for candidate in python3.12 python3 python "$HOME"/.pyenv/versions/3.12*/bin/python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    return 1
}

python=$(find_python) || python=""
uv=$(command -v uv) || uv=""

if [ -z "$python" ] && [ -n "$uv" ]; then
    python=$("$uv" python find 3.12 2>/dev/null) || { "$uv" python install 3.12 && python=$("$uv" python find 3.12); } || python=""
fi
if [ -z "$python" ]; then
    echo "setup: no Python 3.12 found (looked for python3.12, python3, python, pyenv's versions, uv's own)." \
        "Install one, for instance 'pyenv install 3.12', 'apt-get install python3.12-venv' or uv, and run make again." >&2
    exit 1
fi

rm -rf .venv
"$python" -m venv .venv || {
    echo "setup: $python cannot make a virtual environment; install its venv module (Debian: python3.12-venv)." >&2
    exit 1
}
if [ -z "$uv" ]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --target .venv/bootstrap uv
    uv=$PWD/.venv/bootstrap/bin/uv
fi
ln -sf "$uv" .venv/uv
echo "setup: installing $(grep -c '==' requirements.lock) packages into .venv with $python"
"$uv" pip sync --quiet --python .venv/bin/python requirements.lock
# Only the simulated arm's camera needs OpenGL; without it everything else works, so this is no reason to fail.
rendering=$(.venv/bin/python -m robot rendering --install 2>&1) || true
echo "setup: $rendering"
"$python" -c 'import sys; print("setup: done, Python", sys.version.split()[0])'
