"""`tidemark check`: what either database lacks for a run, or what is doubtful in it, with the SQL that fixes it."""
