"""The ways to load that are compared."""
