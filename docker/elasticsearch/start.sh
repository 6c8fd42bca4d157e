#!/bin/sh
# Copies the image's configuration to memory, because Elasticsearch writes its keystore there; adds ours, the password of the
# user elastic and the log shipper's login with its role; then starts Elasticsearch.
set -eu
umask 077
cd /usr/share/elasticsearch
export ES_PATH_CONF=/tmp/config
# left by an earlier start of this container
rm -rf "$ES_PATH_CONF"
cp -r config "$ES_PATH_CONF"
cp /etc/tidemark/elasticsearch/elasticsearch.yml /etc/tidemark/elasticsearch/roles.yml "$ES_PATH_CONF/"
bin/elasticsearch-keystore create
printf '%s' "$ELASTIC_PASSWORD" | bin/elasticsearch-keystore add --stdin bootstrap.password
# it asks for the password twice, and reads it from a pipe, so that no process list shows it
printf '%s\n%s\n' "$TIDEMARK_ELASTICSEARCH_PASSWORD" "$TIDEMARK_ELASTICSEARCH_PASSWORD" |
    bin/elasticsearch-users useradd tidemark_logs -r tidemark_logs
unset ELASTIC_PASSWORD TIDEMARK_ELASTICSEARCH_PASSWORD
exec bin/elasticsearch
