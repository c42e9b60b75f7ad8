/* A libcuda.so.1 for the tests: a driver that answers what the environment tells it to. */
#include <stdio.h>
#include <stdlib.h>

static int told(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

int cuInit(unsigned flags) { return told("FAKE_INIT", 0); }

int cuDriverGetVersion(int *version) {
    *version = told("FAKE_CUDA", 11040);
    return 0;
}

int cuGetErrorString(int status, const char **text) {
    *text = "system not yet initialized";
    return 0;
}

int cuDeviceGetCount(int *count) {
    *count = told("FAKE_COUNT", 1);
    return 0;
}

int cuDeviceGet(int *device, int index) {
    *device = 10 + index; /* a handle need not be the index */
    return 0;
}

int cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, "Fake %d", device - 10);
    return 0;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)24 << 30; /* more than 32 bits hold */
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (attribute == 75)
        *value = told("FAKE_MAJOR", 8);
    else if (attribute == 76)
        *value = told("FAKE_MINOR", 6) + (device - 10);
    else
        return 1;
    return 0;
}
