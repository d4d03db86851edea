"""The waiting page: what a browser sees while its service starts, and how it gets there."""
