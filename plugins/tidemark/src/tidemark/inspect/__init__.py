"""Looks at source and warehouse, and changes only what the user asks for: check, reconcile, state, status, trace."""
