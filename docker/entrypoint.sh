#!/bin/sh
# Every container begins here. A file /run/secrets/NAME becomes the variable NAME, so that no password is in a compose
# file, in what `docker inspect` shows, or in an argument. An empty file says nothing.
set -eu

for file in /run/secrets/*; do
    name=${file##*/}
    if [ -e "$file" ] && [ ! -r "$file" ]; then
        echo "error: $file can't be read by user $(id -u); run 'make secrets', which mends what may read it." >&2
        exit 1
    fi
    # certificates are files, and stay so
    case $name in *[!A-Z0-9_]* | '') continue ;; esac
    value=$(cat "$file")
    [ -z "$value" ] || export "$name=$value"
done

# Compose gives a variable that is not set as an empty one, which Meltano takes for a value.
for name in $(env | sed -n 's/^\([A-Z0-9_]*\)=$/\1/p'); do unset "$name"; done

# Servers refuse a key that others may read, and compose mounts a secret as it is on the host. Memory that is there in
# every container, is writable in a read-only one, and keeps its mode when it is started again.
if [ -r /run/secrets/server.key ]; then
    [ -d /dev/shm/tls ] || mkdir -m 0700 /dev/shm/tls
    (umask 077 && cat /run/secrets/server.key > /dev/shm/tls/server.key)
fi

exec "$@"
