"""What a merged release brings: its changes, migrations of Tidemark's tables, and names that the project still uses."""
