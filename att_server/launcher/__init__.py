"""The launcher: keeps a server of the right release running. Standard library only."""
