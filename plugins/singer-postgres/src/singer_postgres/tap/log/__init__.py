"""Reads LOG_BASED streams from the source's write-ahead log, by logical replication with pgoutput."""
