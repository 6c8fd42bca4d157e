#!/bin/sh
# Writes the password to a file that only this user can read, not into the arguments, then starts Redis.
set -eu
(umask 077 && printf 'requirepass %s\n' "$REDIS_PASSWORD" > /dev/shm/password.conf)
exec redis-server /etc/tidemark/redis/redis.conf
