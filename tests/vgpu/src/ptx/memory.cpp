// Loads, stores and atomics.
#include "translator.hpp"

#include <cctype>
#include <cstring>

namespace ptx {

// Of global memory or any: an access that takes part in the order between threads has functions of its own.
string Translator::strength(const string &space) {
  bool strong = has("volatile") || has("relaxed") || has("acquire") || has("release") || has("mmio");
  return strong && (space == "global" || space == "generic") ? "strong" : space;
}

void Translator::load(vector<Operand> &o, Type ty) {
  if (o.size() < 2) fail(line, "operands are missing: " + opcode);
  auto e = elements(o[0]);
  int n = ty.bytes();
  string s = space(), a = address(o[1]), total = std::to_string(n * (int)e.size());
  if (s == "param") out += "{ const u8 *p_ = (const u8 *)(" + a + "); ";
  else out += "{ const u8 *p_ = vg_ld_" + strength(s) + "(" + a + ", " + total + ", " + here() + "); ";
  string T = ty.kind == 'f' ? c_type(ty) : int_name(ty, ty.kind == 's');
  Type as = ty.kind == 'f' || ty.kind == 's' ? ty : Type{'u', ty.bits};
  for (size_t i = 0; i < e.size(); i++) wr(e[i], "*(const " + T + " *)(p_ + " + std::to_string(i * n) + ")", as);
  out += "} ";
}

void Translator::store(vector<Operand> &o, Type ty) {
  if (o.size() < 2) fail(line, "operands are missing: " + opcode);
  auto e = elements(o[1]);
  int n = ty.bytes();
  string s = space(), a = address(o[0]), total = std::to_string(n * (int)e.size());
  if (s == "param") out += "{ u8 *p_ = (u8 *)(" + a + "); ";
  else out += "{ u8 *p_ = vg_st_" + strength(s) + "(" + a + ", " + total + ", " + here() + "); ";
  Type as = ty.kind == 'f' ? ty : Type{'u', ty.bits};
  string T = c_type(as);
  for (size_t i = 0; i < e.size(); i++) out += "*(" + T + " *)(p_ + " + std::to_string(i * n) + ") = " + rd(e[i], as) + "; ";
  out += "} ";
}

void Translator::atomic(vector<Operand> &o, Type ty, bool red) {
  size_t first = red ? 0 : 1;
  if (o.size() < first + 2 || o[first + 1][0].s == "{") unknown();
  string op;
  for (const char *k : {"and", "or", "xor", "exch", "cas", "add", "inc", "dec", "min", "max"})
    if (has(k)) op = k;
  if (op.empty() || ty.kind == 'h' || ty.kind == 'B' || ty.kind == 'H' || ty.kind == 'X') unknown();
  string T = c_type(ty), s = space();
  string b = rd(o[first + 1], ty);
  out += "{ u8 *p_ = vg_at_" + s + "(" + address(o[first]) + ", " + std::to_string(ty.bytes()) + ", " + here() + "); " + T + " o_ = *(" +
         T + " *)p_, b_ = " + b + "; ";
  string v;
  if (op == "and") v = "o_ & b_";
  else if (op == "or") v = "o_ | b_";
  else if (op == "xor") v = "o_ ^ b_";
  else if (op == "exch") v = "b_";
  else if (op == "add")
    v = ty.kind == 'f' ? (ty.bits == 32 ? "NANF(o_ + b_)" : "NAND(o_ + b_)")
                       : "(" + int_name(ty, false) + ")o_ + (" + int_name(ty, false) + ")b_";
  else if (op == "inc") v = "o_ >= b_ ? 0 : o_ + 1";
  else if (op == "dec") v = "o_ == 0 || o_ > b_ ? b_ : o_ - 1";
  else if (op == "min") v = "o_ < b_ ? o_ : b_";
  else if (op == "max") v = "o_ > b_ ? o_ : b_";
  else {
    if (o.size() < first + 3) unknown();
    v = "o_ == b_ ? " + rd(o[first + 2], ty) + " : o_";
  }
  out += "*(" + T + " *)p_ = " + v + "; ";
  if (!red) wr(o[0], "o_", ty.kind == 'f' || ty.kind == 's' ? ty : Type{'u', ty.bits});
  out += "} ";
}

}  // namespace ptx
