#!/bin/sh
# Creates the secrets that docker-compose.yml gives to containers, in .secrets/: passwords, keys, a certificate authority and
# a certificate for each server. It keeps existing ones, except certificates that expire within 30 days. It needs only openssl.
#
#   docker/secrets.sh [DIRECTORY]
set -eu
cd "$(dirname "$0")/.."
directory=${1:-.secrets}
command -v openssl >/dev/null || { echo "error: secrets need openssl, which is not installed; install it." >&2; exit 1; }

# The directory's mode keeps other users of this machine out. Compose mounts each file with its mode on the host, for a user
# inside the container, so the files themselves must be readable.
mkdir -p "$directory"
if ! chmod 0700 "$directory" 2>/dev/null; then
    echo "error: $directory belongs to another user, perhaps after a sudo; take it back: sudo chown -R $(id -un) $directory" >&2
    exit 1
fi
cd "$directory"
umask 022
# two processes at once would each create a CA
exec 9>.lock
if command -v flock >/dev/null; then flock 9; fi

made=0

# creates the file NAME from the command's output; renames it into place, so that no file is ever incomplete
secret() {
    name=$1
    shift
    if [ -e "$name" ]; then return; fi
    "$@" > "$name.new"
    mv "$name.new" "$name"
    made=$((made + 1))
}

password() { openssl rand -hex 24; }
fernet() { openssl rand -base64 32 | tr '+/' '-_'; }
nothing() { :; }
state() {
    printf 'postgresql+psycopg://%s:%s@airflow_db:5435/meltano?sslmode=verify-full&sslrootcert=/run/secrets/ca.crt\n' \
        "$1" "$(cat "$2")"
}
pooler() {
    printf 'postgres://tidemark_exporter:%s@pgbouncer:6432/pgbouncer?sslmode=verify-full&sslrootcert=/run/secrets/ca.crt\n' \
        "$(cat PGBOUNCER_EXPORTER_PASSWORD)"
}
broker() {
    printf 'rediss://:%s@redis:6379/0?ssl_cert_reqs=required&ssl_ca_certs=/run/secrets/ca.crt\n' "$(cat REDIS_PASSWORD)"
}

for name in SOURCE_SUPERUSER_PASSWORD WAREHOUSE_SUPERUSER_PASSWORD AIRFLOW_SUPERUSER_PASSWORD \
    TAP_POSTGRES_PASSWORD TARGET_POSTGRES_PASSWORD DBT_POSTGRES_PASSWORD TIDEMARK_MONITOR_PASSWORD TIDEMARK_BACKUP_PASSWORD \
    MELTANO_POSTGRES_PASSWORD AIRFLOW_POSTGRES_PASSWORD REDIS_PASSWORD \
    TIDEMARK_REPORTER_PASSWORD MELTANO_MONITOR_PASSWORD POSTGRES_EXPORTER_PASSWORD PGBOUNCER_EXPORTER_PASSWORD \
    GRAFANA_ADMIN_PASSWORD ELASTIC_PASSWORD TIDEMARK_ELASTICSEARCH_PASSWORD KIBANA_SYSTEM_PASSWORD \
    KIBANA_ENCRYPTION_KEY \
    AIRFLOW_ADMIN_PASSWORD AIRFLOW__API__SECRET_KEY AIRFLOW__API_AUTH__JWT_SECRET; do
    secret "$name" password
done
secret AIRFLOW__CORE__FERNET_KEY fernet
secret MELTANO_DATABASE_URI state meltano MELTANO_POSTGRES_PASSWORD
secret MELTANO_MONITOR_URI state tidemark_watcher MELTANO_MONITOR_PASSWORD
secret PGBOUNCER_EXPORTER_CONNECTION_STRING pooler
secret AIRFLOW__CELERY__BROKER_URL broker
# fill these in if you send alerts there
secret TIDEMARK_ALERTS_WEBHOOK_URL nothing
secret TIDEMARK_ALERTS_SMTP_PASSWORD nothing

# --- further sources ------------------------------------------------------------------------------------------------

# Copies the lines of .env with variables of taps and targets, except those that docker-compose.yml passes itself. A source
# with a host gets TLS as the first one does, unless .env says otherwise.
sources() {
    lines=$(sed -nE 's/^ *(export )? *((TAP|TARGET)_[A-Z0-9_]+ *=.*)/\2/p' ../.env 2>/dev/null |
        grep -Ev '^(TAP|TARGET)_POSTGRES_(HOST|PORT|USER|PASSWORD|DATABASE|FILTER_SCHEMAS|_SELECT|_METADATA|SSL_[A-Z_]*) *=' || :)
    printf '%s\n' "$lines"
    for prefix in $(printf '%s\n' "$lines" | sed -n 's/^\(TAP_[A-Z0-9_]*\)_HOST *=.*/\1/p' | sort -u); do
        for setting in SSL_ENABLE=true SSL_MODE=verify-full SSL_CERTIFICATE_AUTHORITY=/run/secrets/ca.crt; do
            printf '%s\n' "$lines" | grep -q "^${prefix}_${setting%%=*} *=" || echo "${prefix}_$setting"
        done
    done
}
sources > sources.env.new
# a container that runs has the old file until it is restarted
if cmp -s sources.env.new sources.env; then rm sources.env.new; else mv sources.env.new sources.env; fi

# --- certificates ---------------------------------------------------------------------------------------------------

key() { (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null); }

if [ ! -e ca.crt ]; then
    key ca.key
    # keyUsage: required by the strict checks of Python 3.13
    openssl req -x509 -new -key ca.key -days 3650 -subj "/CN=Tidemark's own CA" -out ca.crt.new \
        -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign'
    mv ca.crt.new ca.crt
    made=$((made + 1))
fi

# whether a server's certificate exists, matches its key and the CA, and is valid for another 30 days
thirty_days=2592000
good() {
    [ -e "$1.crt" ] && [ -e "$1.key" ] && openssl x509 -checkend "$thirty_days" -noout -in "$1.crt" >/dev/null &&
        openssl verify -CAfile ca.crt "$1.crt" >/dev/null 2>&1 &&
        [ "$(openssl x509 -pubkey -noout -in "$1.crt")" = "$(openssl pkey -pubout -in "$1.key")" ]
}
renewed=
for server in source_db target_db airflow_db pgbouncer redis; do
    if good "$server"; then continue; fi
    if [ -e "$server.crt" ]; then renewed="$renewed $server"; fi
    if [ ! -e ca.key ]; then
        echo "error: $server needs a certificate, but .secrets/ca.key is missing; put it back, or delete ca.crt too." >&2
        exit 1
    fi
    key "$server.key.new"
    # localhost: for a client on the host, through the published port
    printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nauthorityKeyIdentifier=keyid\n' \
        "$server" > "$server.ext"
    openssl req -new -key "$server.key.new" -subj "/CN=$server" |
        openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -extfile "$server.ext" -out "$server.crt.new" 2>/dev/null
    mv "$server.key.new" "$server.key"
    mv "$server.crt.new" "$server.crt"
    rm -f "$server.ext"
    made=$((made + 1))
done

# an earlier umask or an editor may have made files unreadable
find . -type f ! -name ca.key ! -name .lock -exec chmod 0644 {} +
if [ -n "$renewed" ]; then
    echo "Renewed the certificates of:$renewed. Servers read them when they start: docker compose restart$renewed"
fi
if [ "$made" != 0 ]; then echo "Created $made secrets in $directory/. Never commit them; keep a copy in a safe place."; fi
