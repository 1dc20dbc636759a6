"""The example app of ATT and what makes a git repository from it.

`app.py` is a complete agent app on the standard library alone: run it by its
path, or with `python -m att_client.example.app`.
"""
