#!/bin/sh
# Copies the image's configuration to memory, because Elasticsearch writes its keystore there; adds ours and the password of
# the user elastic; then starts Elasticsearch.
set -eu
umask 077
cd /usr/share/elasticsearch
export ES_PATH_CONF=/tmp/config
# left by an earlier start of this container
rm -rf "$ES_PATH_CONF"
cp -r config "$ES_PATH_CONF"
cp /etc/tidemark/elasticsearch/elasticsearch.yml "$ES_PATH_CONF/"
bin/elasticsearch-keystore create
printf '%s' "$ELASTIC_PASSWORD" | bin/elasticsearch-keystore add --stdin bootstrap.password
unset ELASTIC_PASSWORD
exec bin/elasticsearch
