"""Configuration of Prometheus, Alertmanager, Grafana and the shipper of logs."""
