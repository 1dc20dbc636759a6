"""The process beside each running app: its pipes, its log, its life. Standard library only."""
