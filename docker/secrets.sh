#!/bin/sh
# Makes the secrets that docker-compose.yml gives to containers, in .secrets/: passwords, keys, a certificate authority and a
# certificate for each server. What is there stays, but certificates that end within 30 days. Needs openssl alone.
#
#   docker/secrets.sh [DIRECTORY]
set -eu
cd "$(dirname "$0")/.."
directory=${1:-.secrets}
command -v openssl >/dev/null || { echo "error: openssl is needed to make secrets; install it." >&2; exit 1; }

# The directory keeps others of this machine out. Compose mounts each file with the mode that it has here, for a user of the
# container's own, so that the files themselves have to be readable.
mkdir -p "$directory"
if ! chmod 0700 "$directory" 2>/dev/null; then
    echo "error: $directory belongs to another user, as after a sudo; give it back: sudo chown -R $(id -un) $directory" >&2
    exit 1
fi
cd "$directory"
umask 022
# two of these at once would each make a CA
exec 9>.lock
if command -v flock >/dev/null; then flock 9; fi

made=0

# NAME, from what the command prints; by a rename, so that none is ever half there
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
    printf 'postgresql+psycopg://meltano:%s@airflow_db:5435/meltano?sslmode=verify-full&sslrootcert=/run/secrets/ca.crt\n' \
        "$(cat MELTANO_POSTGRES_PASSWORD)"
}
broker() {
    printf 'rediss://:%s@redis:6379/0?ssl_cert_reqs=required&ssl_ca_certs=/run/secrets/ca.crt\n' "$(cat REDIS_PASSWORD)"
}

for name in SOURCE_SUPERUSER_PASSWORD WAREHOUSE_SUPERUSER_PASSWORD AIRFLOW_SUPERUSER_PASSWORD \
    TAP_POSTGRES_PASSWORD TARGET_POSTGRES_PASSWORD DBT_POSTGRES_PASSWORD TIDEMARK_MONITOR_PASSWORD TIDEMARK_BACKUP_PASSWORD \
    MELTANO_POSTGRES_PASSWORD AIRFLOW_POSTGRES_PASSWORD REDIS_PASSWORD \
    AIRFLOW_ADMIN_PASSWORD AIRFLOW__API__SECRET_KEY AIRFLOW__API_AUTH__JWT_SECRET; do
    secret "$name" password
done
secret AIRFLOW__CORE__FERNET_KEY fernet
secret MELTANO_DATABASE_URI state
secret AIRFLOW__CELERY__BROKER_URL broker
# yours to fill, if alerts go there
secret TIDEMARK_ALERTS_WEBHOOK_URL nothing
secret TIDEMARK_ALERTS_SMTP_PASSWORD nothing

# --- certificates ---------------------------------------------------------------------------------------------------

key() { (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null); }

if [ ! -e ca.crt ]; then
    key ca.key
    # keyUsage: Python 3.13's strict checks want it
    openssl req -x509 -new -key ca.key -days 3650 -subj "/CN=Tidemark's own CA" -out ca.crt.new \
        -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign'
    mv ca.crt.new ca.crt
    made=$((made + 1))
fi

# whether a server's certificate is there, fits its key and the authority, and is good for a while
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
        echo "error: the certificate of $server has to be made and .secrets/ca.key is not here; put it back, or delete ca.crt too." >&2
        exit 1
    fi
    key "$server.key.new"
    # localhost for a client on the host, by the published port
    printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nauthorityKeyIdentifier=keyid\n' \
        "$server" > "$server.ext"
    openssl req -new -key "$server.key.new" -subj "/CN=$server" |
        openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -extfile "$server.ext" -out "$server.crt.new" 2>/dev/null
    mv "$server.key.new" "$server.key"
    mv "$server.crt.new" "$server.crt"
    rm -f "$server.ext"
    made=$((made + 1))
done

# what an earlier umask or an editor has closed
find . -type f ! -name ca.key ! -name .lock -exec chmod 0644 {} +
if [ -n "$renewed" ]; then
    echo "Certificates were made anew of:$renewed. Servers take them when they start: docker compose restart$renewed"
fi
if [ "$made" != 0 ]; then echo "Secrets are in $directory/: $made made. It is never committed; keep a copy in a safe place."; fi
