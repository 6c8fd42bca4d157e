"""The `tidemark` utility: local servers, demo shop, and the whole job in one command."""
