#!/bin/bash
# The last of these: without this mark the server is not started again (see start.sh).
set -euo pipefail
touch "$PGDATA.made"
