"""A workflow for the NeMo Agent Toolkit that needs no model and no network."""
