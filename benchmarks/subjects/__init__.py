"""What is measured: ATT, the floor that the system itself is, and its peers, by the same means."""
