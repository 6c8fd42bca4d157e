"""`tidemark check`: what either database lacks, or what is doubtful in it, with the SQL that would mend it."""
