"""Measures ATT beside its floors and peers, by turns, in one run on one machine."""
