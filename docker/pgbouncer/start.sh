#!/bin/sh
# Writes who may connect, from the secrets, where nobody else reads it; then is PgBouncer.
set -eu
umask 077
cat > /dev/shm/users.txt <<USERS
"tidemark_transformer" "$DBT_POSTGRES_PASSWORD"
"tidemark_watcher" "$TIDEMARK_MONITOR_PASSWORD"
"airflow" "$AIRFLOW_POSTGRES_PASSWORD"
USERS
exec pgbouncer /etc/pgbouncer/pgbouncer.ini
