"""How the source is read: its catalogs, which rows a stream has, and how far they are complete."""
