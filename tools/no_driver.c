// Stands in for NVIDIA's driver library (build it as libcuda.so.1 and put its folder into LD_LIBRARY_PATH): says that
// there is no device, and writes down who asked. CUDA's runtime asks the driver at its first call that does anything,
// so a process that is not written down has not touched it. (Some of CUDA's libraries load the driver when they are
// loaded; they ask nothing then.) tests/cuda_wheel.
//
// Each line that goes to the file $WALDO_DRIVER_ASKED: the process's number and its program's path.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void note(void) {
  const char* path = getenv("WALDO_DRIVER_ASKED");
  if (path == NULL) return;
  char program[512] = "";
  const ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
  if (length > 0) program[length] = '\0';
  char line[640];
  const int size = snprintf(line, sizeof(line), "%d %s\n", (int)getpid(), program);
  const int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  if (write(file, line, (size_t)size) < 0) abort();
  close(file);
}

enum { kNoDevice = 100, kSymbolNotFound = 500 };

int cuInit(unsigned flags) {
  note();
  (void)flags;
  return kNoDevice;
}
int cuDriverGetVersion(int* version) {
  note();
  *version = 13000;
  return 0;
}
int cuDeviceGetCount(int* count) {
  note();
  *count = 0;
  return kNoDevice;
}
int cuGetProcAddress_v2(const char* name, void** function, int version, unsigned long long flags, int* found) {
  note();
  (void)name, (void)version, (void)flags;
  *function = NULL;
  if (found != NULL) *found = 1;  // not found
  return kSymbolNotFound;
}
int cuGetProcAddress(const char* name, void** function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
