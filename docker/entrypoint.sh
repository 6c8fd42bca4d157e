#!/bin/sh
# The entrypoint of every container. It exports a file /run/secrets/NAME as the variable NAME, so that no password is in a
# compose file, in `docker inspect`, or in an argument. It skips empty files.
set -eu

for file in /run/secrets/*; do
    name=${file##*/}
    if [ -e "$file" ] && [ ! -r "$file" ]; then
        echo "error: user $(id -u) can't read $file; run 'make secrets', which sets the file's mode." >&2
        exit 1
    fi
    # certificates stay files
    case $name in *[!A-Z0-9_]* | '') continue ;; esac
    value=$(cat "$file")
    [ -z "$value" ] || export "$name=$value"
done

# Compose passes an unset variable as an empty one, which Meltano would treat as a value.
for name in $(env | sed -n 's/^\([A-Z0-9_]*\)=$/\1/p'); do unset "$name"; done

# Servers refuse a private key that others can read, but compose mounts a secret with its mode on the host. So copy it to
# /dev/shm: it exists in every container, is writable in a read-only one, and keeps its mode after a restart.
if [ -r /run/secrets/server.key ]; then
    [ -d /dev/shm/tls ] || mkdir -m 0700 /dev/shm/tls
    (umask 077 && cat /run/secrets/server.key > /dev/shm/tls/server.key)
fi

exec "$@"
