#!/bin/sh
# The image's own entrypoint initializes an empty directory and then runs init/ once. If that is interrupted, its next start
# treats the directory as complete, and roles could be missing. So this script checks for the mark of 90-made.sh.
set -eu
if [ -s "$PGDATA/PG_VERSION" ] && [ ! -e "$PGDATA.made" ]; then
    echo "error: the first start of this server, for database $POSTGRES_DB, failed: see its log from then. It holds no" \
        "data yet; delete its volume ('docker volume ls' names it) and start again." >&2
    exit 1
fi

# With LOGS, the server also writes JSON for the shipper, one file a day of the week, and begins it again a week later. Its
# collector takes what would be on the console, so show the text files there.
logs=/var/log/postgresql
if [ -n "${LOGS:-}" ]; then
    for day in Mon Tue Wed Thu Fri Sat Sun; do touch "$logs/postgresql-$day.log"; done
    tail -q -n 0 -F "$logs"/postgresql-*.log 2>/dev/null &
    set -- "$@" -c logging_collector=on -c log_destination=stderr,jsonlog -c log_directory="$logs" \
        -c log_filename=postgresql-%a.log -c log_truncate_on_rotation=on -c log_rotation_age=1d -c log_rotation_size=0 \
        -c log_file_mode=0644
fi
exec docker-entrypoint.sh "$@"
