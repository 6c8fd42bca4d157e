#!/bin/sh
# Writes the password where nobody else reads it, and not among the arguments; then is Redis.
set -eu
(umask 077 && printf 'requirepass %s\n' "$REDIS_PASSWORD" > /dev/shm/password.conf)
exec redis-server /etc/tidemark/redis/redis.conf
