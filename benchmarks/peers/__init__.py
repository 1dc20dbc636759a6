"""The peers of `make bench`, each installed into a directory of its own."""
