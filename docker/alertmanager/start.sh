#!/bin/sh
# Writes Alertmanager's configuration for the settings of alerts, readable only by this user, then starts Alertmanager.
set -eu
(umask 077 && /etc/alertmanager/configure.sh > /dev/shm/alertmanager.yml)
exec "$@" --config.file=/dev/shm/alertmanager.yml
