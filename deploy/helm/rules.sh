#!/bin/sh
# Prints monitoring/prometheus/rules/ as PrometheusRules: deploy/helm/rules.sh | kubectl apply --namespace data --filename -
set -eu
cd "$(dirname "$0")/../.."

for file in monitoring/prometheus/rules/*.yml; do
    name=${file##*/}
    cat <<YAML
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tidemark-${name%.yml}
  labels: {app.kubernetes.io/name: tidemark-metrics}
spec:
YAML
    sed 's/^./  &/' "$file"
done
