#!/bin/bash
# At the source's first start: creates the demo shop, unless SHOP_SCALE is 0.
set -euo pipefail

if [ "${SHOP_SCALE:-0}" = 0 ]; then exit; fi
# midnight, so that every shop of one day is the same
as_of=$(date --utc +%Y-%m-%dT00:00:00+00:00)
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --single-transaction --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --command "set demo.scale = '$SHOP_SCALE'" --command "set demo.as_of = '$as_of'" \
    --file /etc/tidemark-shop/1_tables.sql --file /etc/tidemark-shop/2_rows.sql --file /etc/tidemark-shop/3_constraints.sql \
    --command "comment on schema public is 'Tidemark demo shop, scale $SHOP_SCALE, until $as_of'"
