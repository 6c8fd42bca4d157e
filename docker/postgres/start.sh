#!/bin/sh
# The image's own entrypoint makes an empty directory into a cluster and runs init/ then, once. What was cut short in that is
# taken for whole at the next start, so that roles could be missing.
set -eu
if [ -s "$PGDATA/PG_VERSION" ] && [ ! -e "$PGDATA.made" ]; then
    echo "error: the first start of this server, for database $POSTGRES_DB, did not end well: see what it said then. Nothing" \
        "was in it yet; delete its volume ('docker volume ls' names it) and start again." >&2
    exit 1
fi
exec docker-entrypoint.sh "$@"
