"""How the warehouse is written: the tables of streams, the `_tidemark_*` tables, and the locks of a run."""
