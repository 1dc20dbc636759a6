"""The ATT server: runs apps, keeps their logs, ships their releases."""
