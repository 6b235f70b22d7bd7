// _waldo_torch: the functions behind the names that torch/cuda/*.py expects in torch._C. python/waldo/_torch/names.py
// puts them there and supplies what needs no C++.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/Generator.h>
#include <torch/csrc/Storage.h>
#include <torch/csrc/utils/pybind.h>

#include "client/session.h"
#include "frontends/torch/attention.h"
#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/forward_flags.h"
#include "frontends/torch/generator.h"
#include "frontends/torch/layers.h"
#include "frontends/torch/memory_info.h"
#include "frontends/torch/pinned.h"
#include "frontends/torch/profiler.h"
#include "frontends/torch/python/dlpack.h"
#include "frontends/torch/python/graph.h"
#include "frontends/torch/python/interpreter.h"
#include "frontends/torch/python/memory_history.h"
#include "frontends/torch/python/process_group.h"
#include "frontends/torch/python/stream_event.h"
#include "frontends/torch/storage.h"
#include "frontends/torch/streams.h"

namespace py = pybind11;

namespace waldo::torch_frontend::python {
namespace {

using NoGil = py::call_guard<py::gil_scoped_release>;

c10::DeviceIndex index_of(int64_t device) {
  TORCH_CHECK(device >= -1 && device < kDevicesMax, "Invalid device argument ", device);
  return resolve_device(static_cast<c10::DeviceIndex>(device));
}

void define_devices(py::module_& module) {
  module.def("device_count", &device_count);
  module.def("in_bad_fork", [] { return client::Runtime::instance().in_forked_child(); });
  module.def("check_available", [] {
    if (device_count() == 0) static_cast<void>(resolve_device(0));
  });
  module.def("current_device", [] { return static_cast<int>(current_device()); });
  module.def("set_device", [](int device) { set_device(index_of(device)); });
  module.def("exchange_device",
             [](int device) { return device < 0 ? -1 : static_cast<int>(exchange_device(index_of(device))); });
  module.def(
      "synchronize", [] { synchronize_device(current_device()); }, NoGil());
  module.def("default_generator", [](int device) {
    return py::reinterpret_steal<py::object>(THPGenerator_Wrap(default_generator(index_of(device))));
  });
  module.def("current_stream", [](int device) {
    const c10::StreamData3 data = current_stream(index_of(device)).pack3();
    return py::make_tuple(data.stream_id, static_cast<int>(data.device_index), static_cast<int>(data.device_type));
  });
  module.def("default_stream", [](int device) {
    const c10::StreamData3 data = default_stream(index_of(device)).pack3();
    return py::make_tuple(data.stream_id, static_cast<int>(data.device_index), static_cast<int>(data.device_type));
  });
  module.def("set_capturing", &set_capturing);
  module.def("is_capturing", &is_capturing);
  module.def("set_stream", [](int64_t stream_id, int64_t device, int64_t) {
    const auto index = index_of(device);
    set_device(index);
    exchange_stream(c10::Stream(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::CUDA, index), stream_id));
  });
  module.def("device_info", [](int device) {
    const client::DeviceInfo* info = nullptr;
    {
      py::gil_scoped_release no_gil;
      info = &device_info(index_of(device));
    }
    py::dict facts;
    facts["name"] = info->name;
    facts["kind"] = info->kind;
    facts["total_memory"] = memory_of(*info);
    facts["major"] = info->capability_major;
    facts["minor"] = info->capability_minor;
    facts["multi_processor_count"] = info->multi_processor_count;
    return facts;
  });
  module.def("worker_json", [](int device) {
    py::gil_scoped_release no_gil;
    return queue_for(c10::Device(c10::DeviceType::CUDA, index_of(device))).session().worker().json;
  });
}

py::tuple tuple_of(const Tally& tally) {
  return py::make_tuple(tally.current, tally.peak, tally.allocated, tally.freed());
}
py::tuple tuple_of(const Tally (&tallies)[3]) {
  return py::make_tuple(tuple_of(tallies[0]), tuple_of(tallies[1]), tuple_of(tallies[2]));
}

void define_memory(py::module_& module) {
  module.def("memory_stats", [](int device) {
    const MemoryStats stats = memory_stats(index_of(device));
    py::dict result;
    result["count"] = tuple_of(stats.count);
    result["bytes"] = tuple_of(stats.bytes);
    result["requested"] = tuple_of(stats.requested);
    result["reserved"] = tuple_of(stats.reserved);
    result["segments"] = tuple_of(stats.segments);
    result["out_of_memory"] = stats.out_of_memory;
    result["limit"] = stats.limit;
    return result;
  });
  module.def("memory_blocks", [](int device) {
    py::list result;
    for (const MemoryBlock& block : memory_blocks(index_of(device))) {
      result.append(
          py::make_tuple(reinterpret_cast<uintptr_t>(block.address), block.bytes, block.taken, block.is_large));
    }
    return result;
  });
  module.def("reset_peak_memory", [](int device) { reset_peak_memory(index_of(device)); });
  module.def("reset_accumulated_memory", [](int device) { reset_accumulated_memory(index_of(device)); });
  module.def("set_memory_limit", [](int device, uint64_t bytes) { set_memory_limit(index_of(device), bytes); });
  module.def("empty_cache", [] {
    for (int device = 0; device < kDevicesMax; ++device) {
      if (opened(static_cast<c10::DeviceIndex>(device))) empty_cache(static_cast<c10::DeviceIndex>(device));
    }
  });
  module.def("memory_info", [](int device) {
    MemoryInfo info;
    {
      py::gil_scoped_release no_gil;
      info = memory_info(index_of(device));
    }
    return py::make_tuple(info.free, info.total);
  });
  module.def("pinned_stats", [] {
    const PinnedStats stats = pinned_stats();
    py::dict result;
    result["count"] = stats.count;
    result["bytes"] = stats.bytes;
    result["bytes_peak"] = stats.bytes_peak;
    result["count_total"] = stats.count_total;
    result["bytes_total"] = stats.bytes_total;
    return result;
  });
  module.def("allocator_address", [] { return reinterpret_cast<uintptr_t>(allocator()); });
  module.def("resize_storage", [](const py::object& storage, int64_t bytes) {
    TORCH_CHECK_TYPE(THPStorage_Check(storage.ptr()), "expected an UntypedStorage");
    TORCH_CHECK_VALUE(bytes >= 0, "resize_: the size must not be negative, got ", bytes);
    resize_storage(*THPStorage_Unpack(storage.ptr()).unsafeGetStorageImpl(), static_cast<uint64_t>(bytes));
  });
}

// torch.backends.cuda.SDPAParams, as its attributes are named.
sdp::sdp_params attention_of(const py::object& params) {
  const auto tensor = [&](const char* name) { return params.attr(name).cast<at::Tensor>(); };
  return {tensor("query"),
          tensor("key"),
          tensor("value"),
          params.attr("attn_mask").cast<std::optional<at::Tensor>>(),
          params.attr("dropout").cast<double>(),
          params.attr("is_causal").cast<bool>(),
          params.attr("enable_gqa").cast<bool>()};
}

void define_attention(py::module_& module) {
  module.def("can_use_flash_attention",
             [](const py::object& params, bool debug) { return can_use_flash_attention(attention_of(params), debug); });
  module.def("can_use_efficient_attention", [](const py::object& params, bool debug) {
    return can_use_efficient_attention(attention_of(params), debug);
  });
}

void define_session(py::module_& module) {
  module.def("configure",
             [](const std::string& target, int gpus, const std::string& version, const std::string& package) {
               client::Options options;
               options.target = target;
               options.gpus = gpus;
               options.frontend = "torch";
               options.frontend_version = version;
               options.package_dir = package;
               client::Runtime::instance().configure(std::move(options));
             });
  module.def("lend_interpreter", [](const py::object& lost_class, const py::list& skipped) {
    lend_interpreter(lost_class.ptr(), skipped.ptr());
  });
  module.def("last_profiled_interval", [] {
    const ProfiledInterval interval = last_profiled_interval();
    return py::make_tuple(interval.device, interval.begin_ns, interval.end_ns);
  });
  module.def("set_worker_threads", &set_worker_threads);
  module.def("counters", [] {
    const client::Counters counters = client::Runtime::instance().counters();
    py::dict result;
    result["calls"] = counters.calls;
    result["messages"] = counters.messages;
    result["waits"] = counters.waits;
    result["bytes_up"] = counters.bytes_up;
    result["bytes_down"] = counters.bytes_down;
    result["plans"] = counters.plans;
    result["asks"] = counters.asks;
    result["conforms"] = counters.conforms;
    result["frees"] = counters.frees;
    py::list places;
    for (const client::WaitPlace& place : counters.waits_at) {
      py::dict entry;
      entry["file"] = place.file;
      entry["line"] = place.line;
      entry["count"] = place.count;
      entry["seconds"] = place.seconds;
      places.append(std::move(entry));
    }
    result["waits_at"] = std::move(places);
    return result;
  });
  module.def("layer_counts", [] {
    py::dict result;
    for (const auto& [op, counts] : layer_counts()) {
      py::list numbers;
      for (const uint64_t count : counts) numbers.append(count);
      result[op.c_str()] = std::move(numbers);
    }
    return result;
  });
  module.def("from_dlpack", &from_dlpack);
  module.def(
      "shutdown",
      [] {
        client::Runtime::instance().shutdown();
        close_storages();
      },
      NoGil());
}

}  // namespace
}  // namespace waldo::torch_frontend::python

PYBIND11_MODULE(_waldo_torch, module) {
  using namespace waldo::torch_frontend::python;
  // Our C++ throws c10 errors and python_error; torch knows how each looks in Python.
  py::register_local_exception_translator([](std::exception_ptr error) {
    try {
      std::rethrow_exception(error);
    } catch (const py::error_already_set&) {
      throw;
    } catch (const py::builtin_exception&) {
      throw;
    } catch (const std::exception&) {
      torch::translate_exception_to_python(error);
    }
  });
  define_devices(module);
  define_memory(module);
  define_memory_history(module);
  define_attention(module);
  define_session(module);
  define_graph(module);
  module.def("define_process_group", [module]() mutable { define_process_group(module); });
  module.attr("StreamBase") = py::reinterpret_steal<py::object>(make_stream_type());
  module.attr("EventBase") = py::reinterpret_steal<py::object>(make_event_type());
}
