# Sourced by quickstart.sh and test.sh: make .venv in the repository's root and install into it what is missing.
# shellcheck shell=bash

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"

say() { printf '\n== %s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The interpreter that makes .venv: $PYTHON, else the first of the usual names that is new enough.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
    [[ -z "${PYTHON:-}" ]] || fail "PYTHON=$PYTHON is no Python 3.11 or newer; set it to one, or unset it"
  done
  fail "no Python 3.11 or newer found (python3 is $(python3 --version 2>&1 || true)); install one, or set PYTHON=/path/to/python3.11"
}

# What an installation depends on: when it changes, pip looks again. A .venv does not survive being moved.
installation_of() {
  { printf '%s\n' "$1" "$ROOT"; cat "$ROOT/pyproject.toml" "$ROOT/infra/constraints.txt" "$ROOT/infra/setup.sh"; } |
    "$VENV/bin/python" -c 'import hashlib, sys; print(sys.version, hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

is_installed() {
  local stamp="$VENV/.installed${1:+-$1}"
  [[ -f "$stamp" && "$(<"$stamp")" == "$(installation_of "$1")" ]]
}

# set_up [EXTRA]: install the project, with an extra of pyproject.toml ("dev") when one is named.
set_up() {
  local extra="${1:-}" python
  if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    python="$(find_python)"
    say "Making $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV" || fail "'$python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"
  fi
  if is_installed "$extra" || is_installed dev; then
    say "Everything is installed in $VENV"
    return
  fi
  say "Installing into $VENV (a few minutes and 4 GB the first time)"
  # torch by itself first: what comes after meets the build that is there and pulls no other
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c "$ROOT/infra/constraints.txt" torch
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c "$ROOT/infra/constraints.txt" \
    -e "$ROOT${extra:+[$extra]}"
  installation_of "$extra" >"$VENV/.installed${extra:+-$extra}"
}

# set_up_cluster: .venv-cluster, which sees all of .venv and has the extra "dask" besides: installed into .venv it
# would slow every start of Prefect by seconds.
set_up_cluster() {
  local beside="$ROOT/.venv-cluster" stamp site wanted
  stamp="$beside/.installed"
  if [[ -f "$stamp" && "$(<"$stamp")" == "$(installation_of dask)" ]]; then
    return
  fi
  say "Installing into $beside (seconds and 60 MB)"
  "$VENV/bin/python" -m venv --without-pip --clear "$beside"
  site="$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  printf 'import site; site.addsitedir("%s")\n' "$site" >"$("$beside/bin/python" -c \
    'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
  wanted="$("$VENV/bin/python" -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["dask"])')"
  # shellcheck disable=SC2086 # one word a requirement
  "$beside/bin/python" -m pip install --quiet --disable-pip-version-check -c "$ROOT/infra/constraints.txt" $wanted
  installation_of dask >"$stamp"
}
