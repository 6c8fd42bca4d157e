"""What tap and target share of the Singer SDK: command line, settings, passwords, tunnels."""
