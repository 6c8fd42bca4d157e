"""What a release brings into a project: plugin definitions, pins, dbt packages, the demo, documentation.

Set-up runs this package with nothing but Python, out of a wheel that is not installed yet, so it imports only the
standard library.
"""
