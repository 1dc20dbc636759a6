"""The tools, by toolset."""
