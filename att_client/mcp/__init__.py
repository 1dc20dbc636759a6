"""The MCP bridge: ATT in the hands of agents. It uses nothing of att_client but its public names.

Needs the extra `mcp`. `att mcp serve` runs it; `Bridge` is what it serves.
"""
