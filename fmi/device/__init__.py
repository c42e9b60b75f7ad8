"""Where fmi computes: MXNet, the GPU driver, the environment, and the choice of a device."""
