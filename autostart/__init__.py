"""autostart: starts a service on the first request and stops it when idle."""
