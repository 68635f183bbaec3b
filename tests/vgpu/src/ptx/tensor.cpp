// Tensor cores: mma, wgmma, and the matrices that they are fed with.
#include "translator.hpp"

#include <cctype>
#include <cstring>

namespace ptx {

void Translator::wgmma(vector<Operand> &o) {
  m.tensor = m.clocks = true;
  if (has("fence")) {
    fresh.clear();
    return;
  }
  if (has("commit_group")) {
    out += "vg_wgmma_commit(" + here() + "); ";
    return;
  }
  if (has("wait_group")) {
    string n = o.empty() ? "0" : o[0][0].s;
    out += "vg_wgmma_wait(" + n + ", " + here() + "); ";
    return;
  }
  if (!has("mma_async") || has("sp") || o.size() < 4) unknown();
  const string &shape = parts.at(4);
  if (shape.compare(0, 4, "m64n")) unknown();
  size_t k_at = shape.find('k');
  int n = atoi(shape.c_str() + 4), k = atoi(shape.c_str() + k_at + 1);
  string dt = parts.at(5), at = parts.at(6);
  char type = at == "tf32" ? 't' : at == "f16" ? 'h' : at == "bf16" ? 'b' : 0, kind = dt == "f32" ? 'f' : dt == "f16" ? 'h' : 0;
  if (!type || !kind || at != parts.at(7) || k != (type == 't' ? 8 : 16)) unknown();
  auto d = elements(o[0]);
  int regs = kind == 'f' ? n / 2 : n / 4;
  if ((int)d.size() != regs || n % 8 || n > 256) fail(line, "wgmma with " + std::to_string(d.size()) + " registers of sums");
  bool in_registers = o[1][0].s == "{";
  out += "{ u32 d_[" + std::to_string(regs) + "] = {";
  for (auto &e : d) out += rd(e, {'u', 32}) + ", ";
  out += "}; ";
  string a = "0", a_at = "0";
  vector<Operand> fragments;
  auto checked = [&](const Operand &e, const char *what) {
    if (fresh.count(e[0].s)) {
      out += "vg_note(\"no wgmma.fence\", \"" + e[0].s + ", " + what + " of a wgmma, is written after the last wgmma.fence\", " + here() +
             "); ";
      return true;
    }
    return false;
  };
  if (in_registers) {
    fragments = elements(o[1]);
    if (fragments.size() != 4) fail(line, "A in " + std::to_string(fragments.size()) + " registers");
    out += "u32 a_[4] = {";
    for (auto &x : fragments) out += rd(x, {'u', 32}) + ", ";
    out += "}; ";
    a = "a_";
    for (auto &x : fragments)
      if (checked(x, "A")) break;
  } else a_at = rd(o[1], {'u', 64});
  for (auto &x : d)
    if (checked(x, "sums")) break;
  auto immediate = [&](size_t i) { return i < o.size() ? rd(o[i], {'s', 32}) : string("0"); };
  size_t trans = 6;
  string ta = "0", tb = "0";
  if (type != 't') {
    if (!in_registers) ta = immediate(trans++);
    tb = immediate(trans);
  }
  out += "vg_wgmma(" + std::to_string(n) + ", '" + type + "', '" + kind + "', d_, " + a + ", " + a_at + ", " + rd(o[2], {'u', 64}) + ", " +
         rd(o[3], {'p', 8}) + ", " + immediate(4) + ", " + immediate(5) + ", " + ta + ", " + tb + ", " + here() + "); ";
  for (int i = 0; i < regs; i++) wr(d[i], "d_[" + std::to_string(i) + "]", {'u', 32}), fresh.erase(d[i][0].s);
  take_off(fragments, d);
  out += "} ";
}

void Translator::mma(vector<Operand> &o) {
  m.tensor = true;
  if (o.size() < 4 || has("sp") || has("satfinite")) unknown();
  size_t i = 1;
  while (i < parts.size() && parts[i][0] != 'm') i++;
  string shape = parts.at(i);
  if (parts.at(i + 1) != "row" || parts.at(i + 2) != "col" || shape.compare(0, 6, "m16n8k")) unknown();
  int k = atoi(shape.c_str() + 6);
  string types_[4];
  for (int j = 0; j < 4; j++) types_[j] = parts.at(i + 3 + j);
  auto code = [&](const string &t) {
    return t == "tf32"   ? 't'
           : t == "f16"  ? 'h'
           : t == "bf16" ? 'b'
           : t == "s8"   ? 's'
           : t == "u8"   ? 'u'
           : t == "f32"  ? 'f'
           : t == "s32"  ? 'i'
                         : '?';
  };
  char d = code(types_[0]), a = code(types_[1]), b = code(types_[2]), c = code(types_[3]);
  int per = a == 't' ? 1 : a == 'h' || a == 'b' ? 2 : 4;
  bool whole = a == 's' || a == 'u';
  if (!strchr("thbsu", a) || (whole ? !strchr("su", b) || d != 'i' : a != b || (d != 'f' && !(d == 'h' && a == 'h'))) || c != d ||
      (k != 8 * per && k != 4 * per))
    unknown();
  size_t na = k == 8 * per ? 4 : 2, nd = d == 'h' ? 2 : 4;
  auto D = elements(o[0]), A = elements(o[1]), B = elements(o[2]), C = elements(o[3]);
  if (A.size() != na || B.size() != na / 2 || C.size() != nd || D.size() != nd) fail(line, "mma with another number of registers");
  auto list = [&](const char *name, vector<Operand> &x) {
    out += string("u32 ") + name + "[] = {";
    for (auto &e : x) out += rd(e, {'u', 32}) + ", ";
    out += "}; ";
  };
  out += "{ ";
  list("a_", A), list("b_", B), list("c_", C);
  out += "u32 d_[4]; vg_mma(" + std::to_string(k) + ", '" + a + "', '" + b + "', '" + d + "', a_, b_, c_, d_, " + here() + "); ";
  for (size_t j = 0; j < nd; j++) wr(D[j], "d_[" + std::to_string(j) + "]", {'u', 32});
  out += "} ";
}

void Translator::matrix(vector<Operand> &o, bool load) {
  m.tensor = true;
  if (!has("m8n8") || !has("b16") || o.size() < 2) unknown();
  auto r = elements(o[load ? 0 : 1]);
  int count = has("x4") ? 4 : has("x2") ? 2 : 1;
  if ((int)r.size() != count) fail(line, "another number of registers");
  string n = std::to_string(count), trans = has("trans") ? "1" : "0", at = address(o[load ? 1 : 0]);
  if (load) {
    out += "{ u32 r_[4]; vg_ldmatrix(r_, " + n + ", " + trans + ", " + at + ", " + here() + "); ";
    for (int i = 0; i < count; i++) wr(r[i], "r_[" + std::to_string(i) + "]", {'u', 32});
  } else {
    out += "{ u32 r_[4] = {";
    for (auto &e : r) out += rd(e, {'u', 32}) + ", ";
    out += "}; vg_stmatrix(r_, " + n + ", " + trans + ", " + at + ", " + here() + "); ";
  }
  out += "} ";
}

}  // namespace ptx
