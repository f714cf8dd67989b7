/* NVIDIA's management library with one GPU, for machines without any. What POWER says of power decides what it does. */
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6 };

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int gpu, memory; } Utilization;

int nvmlInitWithFlags(unsigned int flags) { return SUCCESS; }
const char *nvmlErrorString(int code) { return "told by the test's library"; }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    *device = (void *)1;
    return strcmp(uuid, "GPU-one") == 0 ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    *memory = (Memory){.total = 80000000000ULL, .free = 78000000000ULL, .used = 2000000000ULL};
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, Utilization *utilization) {
    *utilization = (Utilization){.gpu = 62, .memory = 10};
    return SUCCESS;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned int *celsius) {
    *celsius = 54;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned int *milliwatts) {
    if (getenv("POWER") == NULL) return NOT_SUPPORTED;
    *milliwatts = atoi(getenv("POWER"));
    return SUCCESS;
}
