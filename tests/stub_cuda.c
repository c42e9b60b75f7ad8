/* A stand-in for libcuda.so.1 where there is no NVIDIA driver: the ten functions that MXNet's
   cu112 wheel is linked to. Each one returns 100, CUDA_ERROR_NO_DEVICE. */
#define NO_DEVICE(name) int name(void) { return 100; }
NO_DEVICE(cuDeviceGet)
NO_DEVICE(cuDevicePrimaryCtxRetain)
NO_DEVICE(cuGetErrorString)
NO_DEVICE(cuGraphKernelNodeGetParams)
NO_DEVICE(cuGraphNodeGetType)
NO_DEVICE(cuLaunchKernel)
NO_DEVICE(cuModuleGetFunction)
NO_DEVICE(cuModuleLoadData)
NO_DEVICE(cuModuleLoadDataEx)
NO_DEVICE(cuModuleUnload)
