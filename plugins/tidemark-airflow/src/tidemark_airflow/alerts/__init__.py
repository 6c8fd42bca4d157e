"""Tells people what went wrong, where to look and what to do: by webhook, by mail, or in the log.

`callbacks.py` is what Airflow calls. `context.py` takes apart what it is called with, `message.py` says it,
`settings.py` has where to, and `channels.py` sends it. Nothing here fails or holds up a run.
"""
