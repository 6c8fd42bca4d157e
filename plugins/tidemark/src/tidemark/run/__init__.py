"""The whole job in one command: servers, demo shop, `meltano run`, and a summary that a person can read."""
