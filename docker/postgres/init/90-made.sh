#!/bin/bash
# The last of these scripts. Without this mark, the server refuses to start again (see start.sh).
set -euo pipefail
touch "$PGDATA.made"
