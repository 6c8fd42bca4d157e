"""Times the same load through raw COPY, this project and its peers, in one session on one machine: `make bench`."""
