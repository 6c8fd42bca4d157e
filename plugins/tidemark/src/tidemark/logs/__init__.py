"""Log lines in the fields of the Elastic Common Schema (ECS), and the shipper that sends them to Elasticsearch."""
