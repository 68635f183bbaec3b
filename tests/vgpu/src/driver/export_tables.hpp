// What the statically linked CUDA runtime asks cuGetExportTable for. The identifiers, the layout of the tables and the way its check of
// the driver is computed are facts that the public project ZLUDA (crate dark_api) found out; the code is our own.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

namespace tables {

// In the order of the tables that are handed in: runtime interface, TLS, hooks, storage of a context, integrity, checks of a context.
inline const void *pick(const uint8_t *id, std::vector<void *> tables) {
  static const uint8_t ids[6][16] = {{0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a, 0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d, 0xf9},
                                     {0x42, 0xd8, 0x5a, 0x81, 0x23, 0xf6, 0xcb, 0x47, 0x82, 0x98, 0xf6, 0xe7, 0x8a, 0x3a, 0xec, 0xdc},
                                     {0xa0, 0x94, 0x79, 0x8c, 0x2e, 0x74, 0x2e, 0x74, 0x93, 0xf2, 0x08, 0x00, 0x20, 0x0c, 0x0a, 0x66},
                                     {0xc6, 0x93, 0x33, 0x6e, 0x11, 0x21, 0xdf, 0x11, 0xa8, 0xc3, 0x68, 0xf3, 0x55, 0xd8, 0x95, 0x93},
                                     {0xd4, 0x08, 0x20, 0x55, 0xbd, 0xe6, 0x70, 0x4b, 0x8d, 0x34, 0xba, 0x12, 0x3c, 0x66, 0xe1, 0xf2},
                                     {0x26, 0x3e, 0x88, 0x60, 0x7c, 0xd2, 0x61, 0x43, 0x92, 0xf6, 0xbb, 0xd5, 0x00, 0x6d, 0xfa, 0x7e}};
  for (int i = 0; i < 6; i++)
    if (!memcmp(id, ids[i], 16)) return tables[i];
  return nullptr;
}

struct Device {
  uint8_t uuid[16];
  int32_t domain, bus, device;
};
struct Integrity {
  uint32_t driver, version, process, thread;
  const void *cudart_table, *integrity_table, *function;
  uint64_t seconds;
};

// MD2, whose table is made of the digits of pi.
struct Md2 {
  uint8_t x[48] = {0}, checksum[16] = {0}, last = 0;
  unsigned fill = 0;

  static const uint8_t *table() {
    static uint8_t s[256];
    static const bool made = [] {
      // Durstenfeld's shuffle with the decimal digits of pi (RFC 1319): 722 digits do, by Rabinowitz and Wagon's spigot.
      const int digits = 760, n = digits * 10 / 3 + 2;
      static int a[760 * 10 / 3 + 2];
      for (int i = 0; i < n; i++) a[i] = 2;
      std::vector<int> pi;
      int nines = 0, held = 0;
      bool first = true;
      for (int j = 0; j < digits; j++) {
        int q = 0;
        for (int i = n - 1; i >= 0; i--) {
          int v = 10 * a[i] + q * (i + 1);
          a[i] = v % (2 * i + 1), q = v / (2 * i + 1);
        }
        a[0] = q % 10, q /= 10;
        if (q == 9) nines++;
        else if (q == 10) {
          pi.push_back(held + 1);
          for (; nines; nines--) pi.push_back(0);
          held = 0;
        } else {
          if (!first) pi.push_back(held);
          first = false, held = q;
          for (; nines; nines--) pi.push_back(9);
        }
      }
      unsigned at = 0;
      auto digit = [&] { return at < pi.size() ? pi[at++] : 0; };
      auto random = [&](int m) {
        for (;;) {
          int x = digit(), y = 10;
          if (m > 10) x = x * 10 + digit(), y = 100;
          if (m > 100) x = x * 10 + digit(), y = 1000;
          if (x < m * (y / m)) return x % m;
        }
      };
      for (int i = 0; i < 256; i++) s[i] = (uint8_t)i;
      for (int i = 2; i <= 256; i++) {
        int j = random(i);
        uint8_t t = s[j];
        s[j] = s[i - 1], s[i - 1] = t;
      }
      return true;
    }();
    (void)made;
    return s;
  }

  void add(uint8_t c) {
    const uint8_t *s = table();
    x[16 + fill] = c;
    x[32 + fill] = x[fill] ^ c;
    last = checksum[fill] ^= s[c ^ last];
    if (++fill < 16) return;
    fill = 0;
    uint8_t t = 0;
    for (unsigned round = 0; round < 18; round++) {
      for (auto &v : x) t = v ^= s[t];
      t += (uint8_t)round;
    }
  }
  void add(const void *p, size_t n, uint8_t mask = 0) {
    for (size_t i = 0; i < n; i++) add((uint8_t)(((const uint8_t *)p)[i] ^ mask));
  }
  void finish(uint64_t *out) {
    uint8_t pad = (uint8_t)(16 - fill);
    for (unsigned i = 0; i < pad; i++) add(pad);
    uint8_t sum[16];
    memcpy(sum, checksum, 16);
    for (uint8_t c : sum) add(c);
    memcpy(out, x, 16);
  }
};

// A keyed MD2 of the driver's version, the process, its own addresses and the devices; two constants for two kinds of version.
inline void integrity(const Integrity &what, const Device *devices, int n, uint64_t *out) {
  if (what.version % 10 < 2) {
    out[0] = what.version % 10 ? 0x1841181c03cb675cull : 0x3341181c03cb675cull;
    out[1] = 0x8ed383aa1f4cd1e8ull;
    return;
  }
  static const uint8_t key[16] = {0x14, 0x6a, 0xdd, 0xae, 0x53, 0xa9, 0xa7, 0x52, 0xaa, 0x08, 0x41, 0x36, 0x0b, 0xf5, 0x5a, 0x9f};
  uint64_t inner[2];
  Md2 a, b;
  a.add(key, 16, 0x36);
  a.add(&what, sizeof what);
  for (int i = 0; i < n; i++) a.add(&devices[i], sizeof devices[i]);
  a.finish(inner);
  b.add(key, 16, 0x5c);
  b.add(inner, 16);
  b.finish(out);
}

}  // namespace tables
