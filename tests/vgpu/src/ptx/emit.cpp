// Which instruction is which; those that control the flow, and those of a whole warp or block.
#include "translator.hpp"

#include <cctype>
#include <cstring>

namespace ptx {

void Translator::emit(vector<Operand> &o) {
  const string &op = parts[0];
  Type ty = types.empty() ? Type{'b', 32} : types.back();
  auto need = [&](size_t n) {
    if (o.size() < n) fail(line, "operands are missing: " + opcode);
  };
  Type u32t{'u', 32}, pt{'p', 8};

  if (op == "ld" || op == "ldu") return load(o, ty);
  if (op == "st") return store(o, ty);
  if (op == "atom" || op == "red") return atomic(o, ty, op == "red");
  if (op == "bra") {
    need(1);
    out += "goto " + c_name(o[0][0].s) + "; ";
    return;
  }
  if (op == "brx") {
    need(2);
    auto table = branch_tables.find(o[1][0].s);
    if (table == branch_tables.end()) fail(line, "no such table of branches: " + o[1][0].s);
    out += "switch (" + rd(o[0], u32t) + ") { ";
    for (size_t i = 0; i < table->second.size(); i++) out += "case " + std::to_string(i) + ": goto " + c_name(table->second[i]) + "; ";
    out += "default: vg_trap(" + here() + "); } ";
    return;
  }
  if (op == "ret") {
    out += "return; ";
    return;
  }
  if (op == "exit") {
    out += "vg_exit(); ";
    return;
  }
  if (op == "trap" || op == "brkpt") {
    out += "vg_trap(" + here() + "); ";
    return;
  }
  if (op == "call") return call(o);
  if (op == "mov") return move(o, ty);
  if (op == "cvt") return conversion(o);
  if (op == "setp" || op == "set") return compare(o, op == "set");
  if (op == "cvta") {
    need(2);
    string v = rd(o[1], ty);
    if (space() == "shared") v = has("to") ? v + " - vg_shared_base()" : v + " + vg_shared_base()";
    return wr(o[0], v, ty);
  }
  if (op == "isspacep") {
    need(2);
    string s = parts.at(1);
    return wr(o[0], "vg_is_space(" + rd(o[1], {'u', 64}) + ", '" + s.substr(0, 1) + "')", pt);
  }
  if (op == "bar" || op == "barrier") {
    if (has("cluster")) {  // a cluster is one block here
      if (has("wait")) out += "vg_barrier(0, 0, 0, " + here() + "); ";
      return;
    }
    if (has("warp")) {
      need(1);
      out += "vg_warp_sync(" + rd(o[0], u32t) + ", " + here() + "); ";
      return;
    }
    size_t id_at = has("red") ? 1 : 0;
    if (has("arrive") || o.size() > (has("red") ? 3 : 1) || (o.size() > id_at && o[id_at][0].s != "0")) m.clocks = true;
    if (has("red")) {
      need(3);
      bool counted = o.size() == 4;
      string id = rd(o[1], u32t), count = counted ? rd(o[2], u32t) : "0", p = rd(o.back(), pt);
      char which = has("popc") ? 'p' : has("and") ? 'a' : 'o';
      return wr(o[0], "vg_barrier_red(" + id + ", " + count + ", '" + which + "', " + p + ", " + here() + ")", which == 'p' ? u32t : pt);
    }
    need(1);
    out += "vg_barrier(" + rd(o[0], u32t) + ", " + (o.size() > 1 ? rd(o[1], u32t) : "0") + ", " + (has("arrive") ? "1" : "0") + ", " +
           here() + "); ";
    return;
  }
  if (op == "fence" && has("proxy")) {
    bool async = false;
    for (auto &p : parts) async |= p.compare(0, 5, "async") == 0;
    if (async) m.tensor = true, out += "vg_proxy_fence(" + here() + "); ";
    return;
  }
  if (op == "fence" && has("mbarrier_init")) return;
  if (op == "membar" || op == "fence") {
    if (!has("cta")) out += "vg_fence(" + here() + "); ";
    return;
  }
  if (op == "shfl") {
    need(4);
    char mode = has("up") ? 'u' : has("down") ? 'd' : has("bfly") ? 'b' : 'i';
    string mask = o.size() > 4 ? rd(o[4], u32t) : "0xffffffffu";
    Operand d, p;
    bool second = false;
    for (auto &tok : o[0])
      if (tok.s == "|") second = true;
      else (second ? p : d).push_back(tok);
    out += "{ u8 p_ = 0; u32 v_ = vg_shfl('" + string(1, mode) + "', " + rd(o[1], u32t) + ", " + rd(o[2], u32t) + ", " + rd(o[3], u32t) +
           ", " + mask + ", &p_, " + here() + "); ";
    wr(d, "v_", u32t);
    if (second) wr(p, "p_", pt);
    out += "} ";
    return;
  }
  if (op == "vote") {
    need(2);
    char mode = has("all") ? 'a' : has("any") ? 'o' : has("uni") ? 'u' : 'b';
    return wr(
        o[0],
        "vg_vote('" + string(1, mode) + "', " + rd(o[1], pt) + ", " + (o.size() > 2 ? rd(o[2], u32t) : "0xffffffffu") + ", " + here() + ")",
        mode == 'b' ? u32t : pt);
  }
  if (op == "match") {
    need(3);
    Operand d, p;
    bool second = false;
    for (auto &tok : o[0])
      if (tok.s == "|") second = true;
      else (second ? p : d).push_back(tok);
    out += "{ u8 p_ = 0; u32 v_ = vg_match('" + string(has("all") ? "a" : "o") + "', " + rd(o[1], {'u', ty.bits}) + ", " + rd(o[2], u32t) +
           ", &p_, " + here() + "); ";
    wr(d, "v_", u32t);
    if (second) wr(p, "p_", pt);
    out += "} ";
    return;
  }
  if (op == "redux") {
    need(3);
    string k = parts.at(2);
    char c = k == "add"   ? '+'
             : k == "and" ? '&'
             : k == "or"  ? '|'
             : k == "xor" ? '^'
             : k == "min" ? (ty.kind == 's' ? '<' : 'l')
             : k == "max" ? (ty.kind == 's' ? '>' : 'g')
                          : 0;
    if (!c || ty.kind == 'f') unknown();
    return wr(o[0], "vg_redux('" + string(1, c) + "', " + rd(o[1], u32t) + ", " + rd(o[2], u32t) + ", " + here() + ")", u32t);
  }
  if (op == "elect") {
    need(2);
    Operand d, p;
    bool second = false;
    for (auto &tok : o[0])
      if (tok.s == "|") second = true;
      else (second ? p : d).push_back(tok);
    out += "{ u8 p_ = 0; u32 v_ = vg_elect(" + rd(o[1], u32t) + ", &p_, " + here() + "); ";
    wr(d, "v_", u32t);
    if (second) wr(p, "p_", pt);
    out += "} ";
    return;
  }
  if (op == "activemask") {
    need(1);
    return wr(o[0], "1u << t->lane", u32t);
  }
  if (op == "prefetch" || op == "prefetchu" || op == "discard" || op == "applypriority" || op == "pmevent") return;
  if (op == "griddepcontrol") {
    if (has("wait")) out += "vg_grid_wait(); ";
    return;
  }
  if (op == "createpolicy") {
    need(1);
    return wr(o[0], "0", {'u', 64});
  }
  if (op == "nanosleep") {
    out += "vg_yield(); ";
    return;
  }
  if (op == "cp" && has("async")) return copies(o);
  if (op == "mma") return mma(o);
  if (op == "wgmma") return wgmma(o);
  if (op == "ldmatrix" || op == "stmatrix") return matrix(o, op == "ldmatrix");
  if (op == "movmatrix") {
    need(2);
    m.tensor = true;
    return wr(o[0], "vg_movmatrix(" + rd(o[1], u32t) + ", " + here() + ")", u32t);
  }
  if (op == "mbarrier") return mbarrier(o);
  if (op == "setmaxnreg") {
    need(1);
    m.tensor = true;
    out += "vg_setmaxnreg(" + rd(o[0], u32t) + ", " + here() + "); ";
    return;
  }
  if (op == "mapa") {
    need(2);
    return wr(o[0], rd(o[1], ty), ty);
  }  // a cluster is one block here
  if (op == "selp") {
    need(4);
    return wr(o[0], rd(o[3], pt) + " ? " + rd(o[1], ty) + " : " + rd(o[2], ty), ty);
  }
  if (op == "slct") {
    need(4);
    Type c = types.back(), d = types.at(0);
    return wr(o[0], rd(o[3], c) + " >= 0 ? " + rd(o[1], d) + " : " + rd(o[2], d), d);
  }

  // ---- arithmetic
  if (ty.kind == 'h' || ty.kind == 'B' || ty.kind == 'H' || ty.kind == 'X') return half_arithmetic(o, ty);
  if (ty.kind == 'f') return float_arithmetic(o, ty);
  integer_arithmetic(o, ty);
}

}  // namespace ptx
