#!/usr/bin/env bash
# Install into .venv, then pass every check: lint, types, the test lanes, the wheel, the quickstart, a plan of each
# recipe; in three tracks side by side: much of what is tested waits, so that two would leave two cores idle at times.
# Needs Python 3.11+ and a package registry; no GPU, no hub, no server. Leaves the checkout as it found it. As root on
# Debian it installs Postgres and Redis, which tests start themselves; where they are not, those tests skip.
#   PYTHON=/path/to/python3.11   another interpreter
set -euo pipefail
exec </dev/null
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$ROOT"
set_up dev

export PATH="$VENV/bin:$PATH"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
checkout() { git status --porcelain 2>/dev/null || true; }
before="$(checkout)"

# The databases of a team's server. Without them the tests of it skip, and say so; that fails nothing.
install_databases() {
  local how="apt-get install postgresql redis-server"
  if command -v redis-server >/dev/null && compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null; then
    return
  fi
  if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
    say "Installing Postgres and Redis"
    # RUNLEVEL: no daemon of the system's is started, tests start their own
    if { apt-get update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --yes \
      --no-install-recommends postgresql redis-server; } >"$scratch/apt.txt" 2>&1; then
      return
    fi
    tail -n 3 "$scratch/apt.txt"
  fi
  say "No Postgres or Redis here: the tests of a team's server skip ($how)"
}

# step TITLE COMMAND...: run it, tell how long it took; the first that fails ends all.
step() {
  local title="$1" began="$SECONDS"
  shift
  say "$title"
  "$@" || fail "$title failed: $*"
  printf -- '-- %s: %d s\n' "$title" "$((SECONDS - began))"
}

# The wheel holds every file of the three packages, recipes and templates too.
check_wheel() {
  pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$scratch/wheel" "$ROOT" || return 1
  python - "$scratch"/wheel/*.whl <<'PY'
import sys, zipfile
from pathlib import Path

packed = {name for name in zipfile.ZipFile(sys.argv[1]).namelist() if ".dist-info/" not in name}
files = {
    path.as_posix()
    for package in ("flows", "tasks", "deployments")
    for path in Path(package).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
if packed != files:
    sys.exit(f"the wheel lacks {sorted(files - packed)} and has beyond the tree {sorted(packed - files)}")
print(f"{len(packed)} files in the wheel, {sum(not name.endswith('.py') for name in packed)} of them no Python")
PY
}

# On the store that the quickstart filled: a recipe may continue the model of another. The other recipes need the Hub.
plan_recipes() {
  local recipe
  for recipe in deployments/recipes/quickstart*.toml; do
    echo "dapt plan $recipe"
    DAPT_STORE="$scratch/store" dapt plan "$recipe" >"$scratch/plan.txt" || { cat "$scratch/plan.txt"; return 1; }
    tail -n 1 "$scratch/plan.txt"
  done
}

# Two nodes of a Dask cluster, with a Prefect that has its runner.
cluster_lane() {
  set_up_cluster && "$ROOT/.venv-cluster/bin/python" -m pytest -q tests/contracts/test_two_nodes.py
}

same_checkout() {
  local after
  after="$(checkout)"
  [[ "$after" == "$before" ]] || { diff <(echo "$before") <(echo "$after"); return 1; }
}

# What lints, types and looks, and the flows on servers of their own.
first_track() {
  step "lint and unit lane" "$ROOT/.ci/fast"
  step "types" mypy
  step "slow and flow lanes" pytest -q -m "(slow or flow) and not train and not gpu" --ignore tests/deployments
}

# What trains.
second_track() {
  step "train lane" pytest -q -m "train and not gpu"
}

# What waits for a team's workers, and what a user does first.
third_track() {
  step "team lane" pytest -q -m "flow and not train and not gpu" tests/deployments
  step "cluster lane" cluster_lane
  step "wheel" check_wheel
  step "quickstart" env DAPT_STORE="$scratch/store" bash "$ROOT/infra/quickstart.sh"
  step "plan of every recipe" plan_recipes
}

install_databases
declare -A others
set -m # a process group each, to be ended whole
for track in second third; do
  ("${track}_track") >"$scratch/$track.txt" 2>&1 &
  others[$track]=$!
done
set +m
end() {
  for track in "${!others[@]}"; do
    kill -- "-${others[$track]}" 2>/dev/null && cat "$scratch/$track.txt" # another one failed: as far as it came
  done
  rm -rf "$scratch"
}
trap end EXIT
(first_track)
for track in second third; do
  ended=0
  wait "${others[$track]}" || ended=$?
  cat "$scratch/$track.txt"
  ((ended == 0)) || fail "the $track track ended with $ended"
  unset "others[$track]"
done
step "the checkout is as it was" same_checkout
say "All checks passed in $SECONDS s"
