"""`tidemark state`: how far Meltano's state and the warehouse say that each stream is loaded, and whether they fit."""
