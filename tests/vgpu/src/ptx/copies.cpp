// Asynchronous copies and mbarriers.
#include "translator.hpp"

#include <cctype>
#include <cstring>

namespace ptx {

void Translator::copies(vector<Operand> &o) {
  m.tensor = true;
  Type u32t{'u', 32};
  if (has("mbarrier")) {
    m.clocks = true;
    out += string("vg_cp_arrive(") + address(o.at(0)) + ", " + (has("noinc") ? "1" : "0") + ", " + here() + "); ";
    return;
  }
  if (has("bulk")) {
    m.clocks = true;
    if (has("commit_group") || has("wait_group") || has("prefetch")) return;
    if (has("reduce")) unknown();
    if (has("tensor")) {
      int rank = 0;
      for (auto &p : parts)
        if (p.size() == 2 && p[1] == 'd' && isdigit((unsigned char)p[0])) rank = p[0] - '0';
      bool load = has("global") && parts.at(5).compare(0, 6, "shared") == 0;
      if (!rank || has("im2col") || has("gather4") || o.size() < (load ? 3u : 2u)) unknown();
      const Operand &where = o[load ? 1 : 0];
      Operand map, list;
      bool in_list = false;
      for (size_t i = 1; i + 1 < where.size(); i++) {
        if (where[i].s == "{") in_list = true;
        if (in_list) list.push_back(where[i]);
        else if (where[i].s != ",") map.push_back(where[i]);
      }
      auto c = elements(list);
      if ((int)c.size() != rank) fail(line, "another number of coordinates");
      Operand bracket{{"[", line, 'p'}};
      bracket.insert(bracket.end(), map.begin(), map.end());
      bracket.push_back({"]", line, 'p'});
      out += "{ s32 at_[] = {";
      for (auto &x : c) out += rd(x, {'s', 32}) + ", ";
      out += "}; ";
      string n = std::to_string(rank);
      if (load)
        out += "vg_tensor_in(" + address(o[0]) + ", " + address(bracket) + ", " + n + ", at_, " + address(o[2]) + ", " + here() + "); } ";
      else out += "vg_tensor_out(" + address(bracket) + ", " + n + ", at_, " + address(o[1]) + ", " + here() + "); } ";
      return;
    }
    bool in = false;
    for (auto &p : parts) in |= p == "complete_tx::bytes" || p == "mbarrier::complete_tx::bytes";
    if (in && o.size() >= 4)
      out += "vg_bulk_in(" + address(o[0]) + ", " + address(o[1]) + ", " + rd(o[2], u32t) + ", " + address(o[3]) + ", " + here() + "); ";
    else if (!in && o.size() >= 3)
      out += "vg_bulk_out(" + address(o[0]) + ", " + address(o[1]) + ", " + rd(o[2], u32t) + ", " + here() + "); ";
    else unknown();
    return;
  }
  if (has("commit_group")) {
    out += "vg_cp_commit(); ";
    return;
  }
  if (has("wait_group")) {
    out += "vg_cp_wait(" + rd(o.at(0), u32t) + ", 0, " + here() + "); ";
    return;
  }
  if (has("wait_all")) {
    out += "vg_cp_wait(0, 1, " + here() + "); ";
    return;
  }
  if (o.size() < 3) fail(line, "operands are missing: " + opcode);
  string n = rd(o[2], u32t), source = n;
  if (o.size() > (has("L2::cache_hint") ? 4u : 3u)) {
    const Symbol *s = find(o[3][0].s);
    source = s && s->kind == 'r' && s->cls == 0 ? "(" + rd(o[3], {'p', 8}) + " ? 0 : " + n + ")"
                                                : rd(o[3], u32t);  // ignored where a predicate says so
  }
  out += "vg_cp_async(" + address(o[0]) + ", " + address(o[1]) + ", " + n + ", " + source + ", " + here() + "); ";
}

void Translator::mbarrier(vector<Operand> &o) {
  m.tensor = m.clocks = true;
  const string &what = parts.at(1);
  Type u32t{'u', 32}, u64t{'u', 64};
  auto need = [&](size_t n) {
    if (o.size() < n) fail(line, "operands are missing: " + opcode);
  };
  need(1);
  if (what == "init") {
    need(2);
    out += "vg_mbar_init(" + address(o[0]) + ", " + rd(o[1], u32t) + ", " + here() + "); ";
    return;
  }
  if (what == "inval") {
    out += "vg_mbar_inval(" + address(o[0]) + ", " + here() + "); ";
    return;
  }
  if (what == "expect_tx" || what == "complete_tx") {
    need(2);
    out += "vg_mbar_tx(" + address(o[0]) + ", " + rd(o[1], u32t) + ", " + (what == "complete_tx" ? "1" : "0") + ", " + here() + "); ";
    return;
  }
  if (what == "arrive" || what == "arrive_drop") {
    bool result = o[0][0].s != "[";
    size_t i = result ? 1 : 0;
    need(i + 1);
    bool tx = has("expect_tx");
    string n = o.size() > i + 1 ? rd(o[i + 1], u32t) : "1";
    string call = "vg_mbar_arrive(" + address(o[i]) + ", " + (tx ? "1" : n) + ", " + (tx ? n : "0") + ", " +
                  (what == "arrive" ? "0" : "1") + ", " + here() + ")";
    if (result && o[0][0].s != "_") wr(o[0], call, u64t);
    else out += call + "; ";
    return;
  }
  if (what == "test_wait" || what == "try_wait") {
    need(3);
    bool parity = has("parity");
    return wr(o[0],
              "vg_mbar_wait(" + address(o[1]) + ", " + rd(o[2], parity ? u32t : u64t) + ", " + (parity ? "1" : "0") + ", " + here() + ")",
              {'p', 8});
  }
  if (what == "pending_count") {
    need(2);
    return wr(o[0], "(u32)(" + rd(o[1], u64t) + ") & 0xfffff", u32t);
  }
  unknown();
}

}  // namespace ptx
