"""What tap and target share of the Singer SDK's world: command line, settings, passwords, SSH tunnels."""
