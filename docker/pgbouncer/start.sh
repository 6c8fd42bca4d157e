#!/bin/sh
# Writes the users file from the secrets, readable only by this user, then starts PgBouncer.
set -eu
umask 077
cat > /dev/shm/users.txt <<USERS
"tidemark_transformer" "$DBT_POSTGRES_PASSWORD"
"tidemark_watcher" "$TIDEMARK_MONITOR_PASSWORD"
"airflow" "$AIRFLOW_POSTGRES_PASSWORD"
"tidemark_exporter" "$PGBOUNCER_EXPORTER_PASSWORD"
USERS

# With LOGS, PgBouncer also writes a file for the shipper. Each day it gets a new one; a week's files stay.
logs=/var/log/pgbouncer
if [ -n "${LOGS:-}" ]; then
    umask 022
    printf '%%include /etc/pgbouncer/pgbouncer.ini\nlogfile = %s/pgbouncer.log\n' "$logs" > /dev/shm/pgbouncer.ini
    while sleep 86400; do
        mv "$logs/pgbouncer.log" "$logs/pgbouncer-$(date +%u).log"
        # pgbouncer opens its log file again
        kill -HUP "$$"
    done &
    exec pgbouncer /dev/shm/pgbouncer.ini
fi
exec pgbouncer /etc/pgbouncer/pgbouncer.ini
