"""Tells people what went wrong, where to look and what to do: through a webhook, by mail, or in the log.

Airflow calls `callbacks.py`. `context.py` reads what Airflow passes, `message.py` writes the message, `settings.py`
says where it goes, and `channels.py` sends it. Nothing here makes a run fail or wait.
"""
