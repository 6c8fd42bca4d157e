"""The Meltano project: its files, settings, variables and schedules, and Meltano's own view of them."""
