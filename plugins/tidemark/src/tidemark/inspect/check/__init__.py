"""`tidemark check`: finds problems for a run in either database, and shows the SQL that fixes them."""
