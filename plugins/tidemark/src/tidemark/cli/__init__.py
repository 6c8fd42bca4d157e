"""The command line: declares commands and their options, a group a file, and leaves the work to the other rooms."""
