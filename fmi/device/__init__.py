"""Devices: import of MXNet, GPU driver, environment, and choice of the device."""
