"""What the core needs from outside, one module a port."""
