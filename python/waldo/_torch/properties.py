"""torch.cuda.get_device_properties(): what the worker says of a device."""

from __future__ import annotations

import functools
import json
import uuid
from typing import Any

from waldo._torch import native

_MIB = 1 << 20

# What every CUDA device of the last ten years has, for attributes that the worker did not name.
_USUAL: dict[str, Any] = {
    "warp_size": 32,
    "max_threads_per_block": 1024,
    "max_threads_per_multi_processor": 2048,
    "regs_per_multiprocessor": 65536,
    "shared_memory_per_block": 49152,
    "shared_memory_per_block_optin": 49152,
    "shared_memory_per_multiprocessor": 65536,
    "L2_cache_size": 0,
    "clock_rate": 0,
    "memory_clock_rate": 0,
    "memory_bus_width": 0,
    "is_integrated": 0,
    "is_multi_gpu_board": 0,
    "pci_bus_id": 0,
    "pci_device_id": 0,
    "pci_domain_id": 0,
    "gcnArchName": "",
}


class DeviceProperties:
    """Properties of one device; attributes as those of torch.cuda's own."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int

    def __init__(self, facts: dict[str, Any]) -> None:
        self.__dict__.update(_USUAL)
        self.__dict__.update(facts)

    def __repr__(self) -> str:
        return (
            f"_CudaDeviceProperties(name='{self.name}', major={self.major}, minor={self.minor}, "
            f"total_memory={self.total_memory // _MIB}MB, multi_processor_count={self.multi_processor_count}, "
            f"uuid={self.uuid}, pci_bus_id={self.pci_bus_id}, pci_device_id={self.pci_device_id}, "
            f"pci_domain_id={self.pci_domain_id}, L2_cache_size={self.L2_cache_size // _MIB}MB)"
        )

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the properties of a Waldo device have no {name!r}")


DeviceProperties.__name__ = DeviceProperties.__qualname__ = "_CudaDeviceProperties"
DeviceProperties.__module__ = "torch._C"


@functools.cache
def properties_of(device: int) -> DeviceProperties:
    """Connects. Raises as any first use of the device."""
    module = native.get()
    facts = dict(module.device_info(device))
    said = _said_by_worker(module.worker_json(device), facts["name"])
    facts.update({name: said[name] for name in _USUAL if name in said})
    facts["uuid"] = said.get("uuid") or str(uuid.uuid5(uuid.NAMESPACE_OID, f"waldo:{facts['name']}:{device}"))
    return DeviceProperties(facts)


def _said_by_worker(text: str, name: str) -> dict[str, Any]:
    try:
        devices = json.loads(text).get("devices", [])
    except (ValueError, AttributeError):
        return {}
    return next((d for d in devices if isinstance(d, dict) and d.get("name") == name), {})
