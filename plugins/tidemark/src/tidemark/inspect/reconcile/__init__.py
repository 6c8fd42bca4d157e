"""Source and raw compared row by row, and what differs repaired: what no replication key shows."""
