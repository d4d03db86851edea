"""What `curl` sees, and what all speech services share: the API around an engine."""
