"""The dashboards as code. `make dashboards` writes their JSON to monitoring/grafana/dashboards and to demo/."""
