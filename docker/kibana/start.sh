#!/bin/sh
# Gives Kibana's own login its password, which only the user elastic may set, then starts Kibana.
set -eu
# passwords go through a file and a pipe, so that no process list shows them
(umask 077 && printf '{"password": "%s"}' "$ELASTICSEARCH_PASSWORD" > /dev/shm/password.json)
printf 'user = "elastic:%s"\n' "$ELASTIC_PASSWORD" |
    curl --silent --show-error --fail --output /dev/null --config - --header 'Content-Type: application/json' \
        --data @/dev/shm/password.json "$ELASTICSEARCH_HOSTS/_security/user/kibana_system/_password"
rm /dev/shm/password.json
unset ELASTIC_PASSWORD
exec /usr/local/bin/kibana-docker
