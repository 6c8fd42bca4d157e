"""`tidemark reconcile`: compares source and raw tables row by row and repairs differences that no bookmark shows."""
