"""`tidemark state`: compares each stream's bookmark in Meltano's state with the rows that the warehouse holds."""
