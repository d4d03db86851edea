"""What can start and stop a service: `base` is the contract, every other module one runtime."""
