#include "frontends/torch/python/memory_history.h"

#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/profiler/combined_traceback.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>
#include <unordered_map>
#include <vector>

#include "frontends/torch/allocation_history.h"
#include "frontends/torch/device.h"

namespace py = pybind11;

namespace waldo::torch_frontend::python {
namespace {

constexpr const char* kActions[] = {"alloc", "free_requested", "free_completed", "oom", "snapshot"};
static_assert(std::size(kActions) == static_cast<size_t>(HistoryAction::kCount));

// Lists of frames as dicts, one list per traceback and one dict per frame, however often they occur.
class Frames {
 public:
  void want(const Traceback& traceback) {
    if (traceback && places_.emplace(traceback.get(), all_.size()).second) all_.push_back(traceback.get());
  }
  void symbolize() {
    const torch::SymbolizedTracebacks symbolized = torch::symbolize(all_);
    std::vector<py::dict> frames;
    for (const auto& frame : symbolized.all_frames) {
      py::dict entry;
      entry["name"] = frame.funcname;
      entry["filename"] = frame.filename;
      entry["line"] = frame.lineno;
      frames.push_back(std::move(entry));
    }
    for (const auto& traceback : symbolized.tracebacks) {
      py::list list;
      for (const uint64_t index : traceback) list.append(frames.at(index));
      lists_.push_back(std::move(list));
    }
  }
  py::list of(const Traceback& traceback) const {
    return traceback ? lists_.at(places_.at(traceback.get())) : py::list();
  }

 private:
  std::vector<torch::CapturedTraceback*> all_;
  std::unordered_map<const torch::CapturedTraceback*, size_t> places_;
  std::vector<py::list> lists_;
};

// ({address: (frames, stream)} of what lives, [[(action, address, bytes, stream, time, frames, metadata)]] by device)
py::tuple history_for_python(size_t devices) {
  const History kept = history(devices);
  Frames frames;
  for (const auto& [address, living] : kept.living) frames.want(living.frames);
  for (const auto& entries : kept.devices) {
    for (const HistoryEntry& entry : entries) frames.want(entry.frames);
  }
  frames.symbolize();
  py::dict living;
  for (const auto& [address, block] : kept.living) {
    living[py::int_(address)] = py::make_tuple(frames.of(block.frames), block.stream);
  }
  py::list traces;
  for (const auto& entries : kept.devices) {
    py::list trace;
    for (const HistoryEntry& entry : entries) {
      trace.append(py::make_tuple(kActions[static_cast<size_t>(entry.action)], entry.address, entry.bytes, entry.stream,
                                  entry.time_us, frames.of(entry.frames), entry.metadata ? *entry.metadata : ""));
    }
    traces.append(std::move(trace));
  }
  return py::make_tuple(living, traces);
}

uint32_t actions_named(const std::vector<std::string>& names) {
  uint32_t actions = 0;
  for (const std::string& name : names) {
    for (size_t i = 0; i < std::size(kActions); ++i) actions |= name == kActions[i] ? 1u << i : 0u;
  }
  return actions;
}

// Never freed without the interpreter: an observer may outlive it.
OutOfMemoryObserver observer_of(const py::function& function) {
  return [held = new py::function(function)](int device, uint64_t bytes, uint64_t allocated, uint64_t free) {
    const py::gil_scoped_acquire gil;
    (*held)(device, bytes, allocated, free);
  };
}

}  // namespace

void define_memory_history(py::module_& module) {
  using NoGil = py::call_guard<py::gil_scoped_release>;
  module.def(
      "start_history",
      [](int context, bool with_cpp_frames, uint64_t entries_max, bool clear, const std::vector<std::string>& skipped) {
        TORCH_CHECK(context >= 0 && context <= static_cast<int>(HistoryContext::kAll), "no such context: ", context);
        start_history(
            {static_cast<HistoryContext>(context), with_cpp_frames, entries_max, clear, actions_named(skipped)});
      },
      NoGil());
  module.def("stop_history", &stop_history, NoGil());
  module.def("history_is_kept", &history_is_kept);
  module.def("history", &history_for_python);
  module.def("note_snapshot", [](int device, uint64_t bytes) {
    note_snapshot(resolve_device(static_cast<c10::DeviceIndex>(device)), bytes);
  });
  module.def("set_history_metadata", &set_history_metadata);
  module.def("history_metadata", &history_metadata);
  module.def("observe_out_of_memory",
             [](const py::function& observer) { observe_out_of_memory(observer_of(observer)); });
}

}  // namespace waldo::torch_frontend::python
