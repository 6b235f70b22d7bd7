// libwaldo_no_gpu.so: in front of the CUDA runtime that a CUDA build of PyTorch brings, for the one function through
// which all of it asks whether there is a GPU in this machine. There is none, as far as this process goes: its devices
// are ours. PyTorch's profiler asks whenever it writes a trace.
//
// Loaded before PyTorch's libraries, with its names global, so that theirs find this one first (_hook.py).

extern "C" __attribute__((visibility("default"))) int cudaGetDeviceCount(int* count) {
  *count = 0;
  return 0;  // cudaSuccess
}
