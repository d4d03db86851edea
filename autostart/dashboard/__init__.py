"""The operator's page, on the admin listener: what the fleet does, live, and its buttons."""
