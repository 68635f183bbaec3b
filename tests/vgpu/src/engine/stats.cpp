// Lanes run one after the other here, so an instruction's request is put together from the k-th time that each lane of a warp comes to it
// between two points at which the warp waits.
#include "stats.hpp"

#include <string.h>

#include <algorithm>
#include <map>
#include <vector>

#include "block.hpp"
#include "source.hpp"

namespace vg {

struct Request {
  u64 at[32];
  u32 lanes;
  u8 size;
};
struct Place {
  u64 requests = 0, units = 0, least = 0, bytes = 0;  // units: sectors of 32 bytes, or passes over the banks
  bool shared = false, store = false;
  u32 count[32] = {0};
  std::vector<Request> open;
};
static std::map<std::pair<string, u32>, Place> all_places;  // of kernels that may be gone, by the file of their PTX
static std::map<string, std::pair<string, std::vector<string>>> kept_lines;
static std::map<u32, Place> places;  // of this launch

void request(u64 address, u32 n, u32 line, bool shared, bool store) {
  Place &p = places[line];
  u32 lane = current->lane, k = p.count[lane]++;
  if (p.open.size() <= k) p.open.resize(k + 1, Request{{0}, 0, 0});
  Request &r = p.open[k];
  r.at[lane] = address, r.lanes |= 1u << lane, r.size = (u8)std::max<u32>(r.size, n);
  p.shared = shared, p.store = store;
}

void close_requests() {  // when a warp waits
  for (auto &i : places) {
    Place &p = i.second;
    for (Request &r : p.open) {
      if (!r.lanes) continue;
      u64 seen[32 * 4];
      u32 lanes = __builtin_popcount(r.lanes);
      p.requests++, p.bytes += (u64)lanes * r.size;
      if (!p.shared) {
        u32 n = 0;
        for (u32 l = 0; l < 32; l++) {
          if (!(r.lanes >> l & 1)) continue;
          u64 s = r.at[l] >> 5;  // an access is aligned, so it lies in one sector
          bool old = false;
          for (u32 j = 0; j < n && !old; j++) old = seen[j] == s;
          if (!old) seen[n++] = s;
        }
        p.units += n, p.least += (lanes * r.size + 31) / 32;
      } else {
        u32 parts = r.size <= 4 ? 1 : r.size / 4, per = 32 / parts;  // 8 bytes: half a warp at a time, 16: a quarter
        for (u32 part = 0; part < parts; part++) {
          u32 in_bank[32] = {0}, n = 0, most = 0;
          for (u32 l = part * per; l < (part + 1) * per; l++) {
            if (!(r.lanes >> l & 1)) continue;
            for (u32 w = 0; w < std::max<u32>(r.size / 4, 1); w++) {
              u64 word = (r.at[l] >> 2) + w;
              bool old = false;
              for (u32 j = 0; j < n && !old; j++) old = seen[j] == word;
              if (old) continue;
              seen[n++] = word;
              most = std::max(most, ++in_bank[word & 31]);
            }
          }
          p.units += most, p.least += most != 0;
        }
      }
    }
    p.open.clear();
    memset(p.count, 0, sizeof p.count);
  }
}

void end_launch_stats() {
  if (places.empty()) return;
  close_requests();
  auto &kept = kept_lines[kernel->code->path];
  if (kept.second.empty()) kept = {kernel->name, kernel->code->module.lines};
  for (auto &i : places) {
    Place &a = all_places[{kernel->code->path, i.first}], &b = i.second;
    a.requests += b.requests, a.units += b.units, a.least += b.least, a.bytes += b.bytes, a.shared = b.shared, a.store = b.store;
  }
  places.clear();
}

u64 launches_done, blocks_done;
void at_end() {
  if (opt.stats) {
    FILE *f = report_file();
    string last;
    for (auto &i : all_places) {
      const Place &p = i.second;
      auto &kept = kept_lines[i.first.first];
      if (i.first.first != last) fprintf(f, "vgpu: requests of %s (%s)\n", kept.first.c_str(), i.first.first.c_str());
      last = i.first.first;
      string source = source_of(kept.second, i.first.second),
             text = i.first.second <= kept.second.size() ? kept.second[i.first.second - 1] : "";
      size_t a = text.find_first_not_of(" \t");
      fprintf(f, "vgpu:   %s %s: %llu requests, %.2f %s each (%.2f at least)  PTX line %u %s %s\n", p.shared ? "shared" : "global",
              p.store ? "store" : "load ", (unsigned long long)p.requests, (double)p.units / p.requests, p.shared ? "passes" : "sectors",
              (double)p.least / p.requests, i.first.second, source.c_str(), a == string::npos ? "" : text.substr(a, 60).c_str());
    }
  }
  if (any_findings() || opt.stats || opt.log)
    fprintf(report_file(), "vgpu: %llu launches, %llu blocks, %llu findings at %zu places\n", (unsigned long long)launches_done,
            (unsigned long long)blocks_done, (unsigned long long)findings, (size_t)places_found);
  fflush(report_file());
}

}  // namespace vg
