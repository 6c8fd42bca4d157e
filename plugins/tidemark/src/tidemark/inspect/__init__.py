"""Looks at source and warehouse and changes only what it is asked to: check, reconcile, state, status, trace."""
