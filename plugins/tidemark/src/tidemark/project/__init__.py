"""The Meltano project: where its files are, its settings and variables, and what Meltano itself says of them."""
