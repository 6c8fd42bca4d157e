"""Shipping logs: the index template and the lifecycle policy, and Kibana's saved objects."""
