// Copies between memory that cannot be paged out and the device, which the host does not wait for.
#pragma once
#include "state.hpp"

namespace driver {

int reads_from_host(uint64_t from, uint64_t n);       // whether that was overwritten under a copy that is still to be waited for: an error
int writes_to_host(uint64_t to, uint64_t n);          // likewise; copies out of it that come before are over with this one
bool depart(uint64_t to, uint64_t from, uint64_t n);  // false where the copy is put off
int settle(const order::Clock &known, bool host);     // copies that are over for whoever knows this much

}  // namespace driver
