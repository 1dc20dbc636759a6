"""Release cycles: from a change to running and healthy, or back, because."""
