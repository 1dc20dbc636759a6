"""GitHub behind the port `Forges`: its REST API, over a connection that trusts no answer."""
