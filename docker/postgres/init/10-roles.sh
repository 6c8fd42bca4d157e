#!/bin/bash
# At a server's first start: creates the roles that `tidemark roles` prints, with a password for each role that logs in.
# ROLES_SQL is a list of files, ROLES a list of ROLE=SECRET. MONITORING_ROLES_SQL and MONITORING_ROLES are the same for
# monitoring. `10-roles.sh monitoring` updates only those, because older servers don't have them.
set -euo pipefail
# no notice of what exists already
export PGOPTIONS='-c client_min_messages=warning'

sql() {
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"
}

if [ "${1:-}" = monitoring ]; then ROLES_SQL='' ROLES=''; fi
for file in $ROLES_SQL $MONITORING_ROLES_SQL; do sql --file "$file"; done
for pair in $ROLES $MONITORING_ROLES; do
    # psql reads the password from the environment, so that no process list shows it
    ROLE=${pair%%=*} SECRET=${pair#*=}
    PASSWORD=${!SECRET:?"the secret $SECRET is missing"} ROLE=$ROLE sql <<'SQL'
\getenv role ROLE
\getenv password PASSWORD
ALTER ROLE :"role" LOGIN PASSWORD :'password';
SQL
done
