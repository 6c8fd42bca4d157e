"""The command line: declares commands and options, one file per group. Other packages do the work."""
