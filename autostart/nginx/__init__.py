"""Server blocks for nginx, rendered from the map."""
