# The libraries of the torch in `waldo_torch_dir` as targets: torch_cpu, c10 and torch_python. PyTorch's own CMake files look
# for a CUDA compiler when the wheel is a CUDA build and stop where there is none; nothing here is compiled for a GPU.
#
# A torch that is only unpacked, not installed (make torch-matrix), is as good: headers and three libraries are all.
foreach(name c10 torch_cpu torch_python)
  add_library(${name} SHARED IMPORTED GLOBAL)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${waldo_torch_dir}/lib/lib${name}.so)
  if(NOT EXISTS ${waldo_torch_dir}/lib/lib${name}.so)
    message(FATAL_ERROR "${waldo_torch_dir}/lib/lib${name}.so is missing: is that folder PyTorch?")
  endif()
endforeach()
target_include_directories(c10 SYSTEM INTERFACE ${waldo_torch_dir}/include)
# The headers show c10d's classes only with these, as the libraries were built.
target_compile_definitions(torch_cpu INTERFACE USE_C10D_GLOO USE_DISTRIBUTED USE_RPC USE_TENSORPIPE)
target_include_directories(torch_cpu SYSTEM INTERFACE ${waldo_torch_dir}/include)
target_link_libraries(torch_cpu INTERFACE c10)
set(waldo_torch_includes ${waldo_torch_dir}/include ${waldo_torch_dir}/include/torch/csrc/api/include)

