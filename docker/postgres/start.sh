#!/bin/sh
# The image's own entrypoint initializes an empty directory and then runs init/ once. If that is interrupted, its next start
# treats the directory as complete, and roles could be missing. So this script checks for the mark of 90-made.sh.
set -eu
if [ -s "$PGDATA/PG_VERSION" ] && [ ! -e "$PGDATA.made" ]; then
    echo "error: the first start of this server, for database $POSTGRES_DB, failed: see its log from then. It holds no" \
        "data yet; delete its volume ('docker volume ls' names it) and start again." >&2
    exit 1
fi
exec docker-entrypoint.sh "$@"
