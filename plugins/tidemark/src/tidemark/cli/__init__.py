"""The command line: declares commands and their options, one file per group, and leaves the work to the other rooms."""
