// Device memory: allocations with gaps between them, in one range of addresses that the host reads and writes too.
#pragma once
#include <cstdint>
#include <string>

namespace vg {

enum Kind { DEVICE, HOST, MANAGED, MODULE };
struct Allocation {
  uint64_t base, size;
  Kind kind;
  uint64_t id;
  std::string name;
};
uint64_t allocate(uint64_t size, Kind kind, const std::string &name = "");  // 0 where there is no room
bool release(uint64_t address);                                             // false where nothing begins there
const Allocation *find_allocation(uint64_t address);                        // that holds the address
bool register_host(uint64_t address, uint64_t size);  // memory of the host's own; false where some of it is there already
bool unregister_host(uint64_t address);
uint64_t memory_used();
bool in_arena(uint64_t address);
void mark_written(uint64_t address, uint64_t size);          // by the host
void copy_marks(uint64_t to, uint64_t from, uint64_t size);  // device to device
std::string near(uint64_t address);                          // what is there, for people

}  // namespace vg
