#!/usr/bin/env bash
# From nothing to a report: install into .venv, train a small base model on general text, adapt it to a domain.
# CPU only; needs Python 3.11+ and a package registry. Run it again: only what is missing is done.
#   PYTHON=/path/to/python3.11   another interpreter        DAPT_STORE=/data/store   another store than ./store
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export DAPT_STORE="${DAPT_STORE:-$ROOT/store}"
set_up
for recipe in quickstart-base quickstart; do
  say "dapt run deployments/recipes/$recipe.toml (store: $DAPT_STORE)"
  "$VENV/bin/dapt" run "$ROOT/deployments/recipes/$recipe.toml"
done
