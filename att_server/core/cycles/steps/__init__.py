"""The steps of a cycle, one module each; each looks first, so that a repeat never doubles."""
