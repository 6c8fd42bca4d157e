#!/bin/sh
# Writes the users file from the secrets, readable only by this user, then starts PgBouncer.
set -eu
umask 077
cat > /dev/shm/users.txt <<USERS
"tidemark_transformer" "$DBT_POSTGRES_PASSWORD"
"tidemark_watcher" "$TIDEMARK_MONITOR_PASSWORD"
"airflow" "$AIRFLOW_POSTGRES_PASSWORD"
USERS
exec pgbouncer /etc/pgbouncer/pgbouncer.ini
