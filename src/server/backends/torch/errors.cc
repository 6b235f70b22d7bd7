#include "server/backends/torch/errors.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <new>

#include "server/backends/torch/collectives.h"

namespace waldo::torch_backend {
namespace {

using wire::ErrorClass;

constexpr size_t kTextMax = 16u << 10;

std::string cut(std::string text) {
  if (text.size() > kTextMax) text.resize(kTextMax);
  return text;
}

// The CPU allocator reports exhaustion as a plain error; its words are all there is to tell it by.
bool speaks_of_memory(std::string_view text) {
  return text.find("DefaultCPUAllocator: can't allocate memory") != std::string_view::npos ||
         text.find("DefaultCPUAllocator: not enough memory") != std::string_view::npos;
}

}  // namespace

Status device_error(ErrorClass error_class, std::string text, std::string_view op) {
  StatusDetail detail;
  detail.error_class = static_cast<uint16_t>(error_class);
  detail.op = std::string(op);
  return Status(StatusKind::kDevice, cut(std::move(text)), std::move(detail));
}

Status out_of_memory(uint64_t wanted_bytes, uint64_t used_bytes, uint64_t cap_bytes, uint16_t device) {
  constexpr double kMib = 1024.0 * 1024.0;
  return device_error(
      ErrorClass::kOutOfMemory,
      fmt::format("CUDA out of memory. Tried to allocate {:.2f} MiB. GPU {} has a total capacity of "
                  "{:.2f} MiB of which {:.2f} MiB is free.",
                  static_cast<double>(wanted_bytes) / kMib, device, static_cast<double>(cap_bytes) / kMib,
                  static_cast<double>(cap_bytes > used_bytes ? cap_bytes - used_bytes : 0) / kMib));
}

Status status_of_current_exception(std::string_view op) {
  // Building the text may itself run out of memory; then the plain fact is all we say.
  try {
    try {
      throw;
    } catch (const CollectiveFailure& e) {
      return e.status;
    } catch (const c10::OutOfMemoryError& e) {
      return device_error(ErrorClass::kOutOfMemory, e.what_without_backtrace(), op);
    } catch (const c10::IndexError& e) {
      return device_error(ErrorClass::kIndex, e.what_without_backtrace(), op);
    } catch (const c10::ValueError& e) {
      return device_error(ErrorClass::kValue, e.what_without_backtrace(), op);
    } catch (const c10::TypeError& e) {
      return device_error(ErrorClass::kType, e.what_without_backtrace(), op);
    } catch (const c10::NotImplementedError& e) {
      return device_error(ErrorClass::kNotImplemented, e.what_without_backtrace(), op);
    } catch (const c10::LinAlgError& e) {
      return device_error(ErrorClass::kLinAlg, e.what_without_backtrace(), op);
    } catch (const c10::AcceleratorError& e) {
      return device_error(ErrorClass::kAccelerator, e.what_without_backtrace(), op);
    } catch (const c10::Error& e) {
      std::string text = e.what_without_backtrace();
      // CUDA has half-precision FFTs, so the client does not refuse them; on a CPU PyTorch itself says it so.
      constexpr std::string_view kNoFft = "MKL FFT doesn't support tensors of type: ";
      if (text.starts_with(kNoFft)) text.replace(0, kNoFft.size(), "Unsupported dtype ");
      return device_error(speaks_of_memory(text) ? ErrorClass::kOutOfMemory : ErrorClass::kRuntime,
                          speaks_of_memory(text) ? "CUDA out of memory. " + text : text, op);
    } catch (const std::bad_alloc&) {
      return device_error(ErrorClass::kOutOfMemory, "CUDA out of memory. The worker's memory is exhausted.", op);
    } catch (const std::exception& e) {
      const std::string text = e.what();
      return device_error(speaks_of_memory(text) ? ErrorClass::kOutOfMemory : ErrorClass::kRuntime,
                          speaks_of_memory(text) ? "CUDA out of memory. " + text : text, op);
    } catch (...) {
      return device_error(ErrorClass::kRuntime, "the operator threw something that is not an exception", op);
    }
  } catch (...) {
    return Status(StatusKind::kDevice, "CUDA out of memory.",
                  StatusDetail{static_cast<uint16_t>(ErrorClass::kOutOfMemory), 0, 0, {}});
  }
}

}  // namespace waldo::torch_backend
