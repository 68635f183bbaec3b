// Comparisons, moves and conversions.
#include "translator.hpp"

#include <cctype>
#include <cstring>

namespace ptx {

void Translator::compare(vector<Operand> &o, bool set) {
  if (o.size() < 3) fail(line, "operands are missing: " + opcode);
  static const std::map<string, string> signs = {{"eq", "=="}, {"ne", "!="}, {"lt", "<"},  {"le", "<="}, {"gt", ">"},
                                                 {"ge", ">="}, {"lo", "<"},  {"ls", "<="}, {"hi", ">"},  {"hs", ">="}};
  string cmp = parts.at(1);
  Type ty = types.back();
  bool small = ty.kind == 'h' || ty.kind == 'B';
  if (ty.kind == 'H' || ty.kind == 'X') unknown();
  string a, b;
  if (small) a = half(o[1], ty), b = half(o[2], ty);
  else {
    Type as = ty;
    if (cmp == "lo" || cmp == "ls" || cmp == "hi" || cmp == "hs") as.kind = 'u';
    a = flush(rd(o[1], as), ty), b = flush(rd(o[2], as), ty);
  }
  string e;
  auto sign = signs.find(cmp);
  if (ty.kind != 'f' && !small) {
    if (sign == signs.end()) unknown();
    e = a + " " + sign->second + " " + b;
  } else if (cmp == "num") e = "!__builtin_isunordered(" + a + ", " + b + ")";
  else if (cmp == "nan") e = "__builtin_isunordered(" + a + ", " + b + ")";
  else if (cmp == "ne") e = "(" + a + " < " + b + " || " + a + " > " + b + ")";
  else if (sign != signs.end()) e = a + " " + sign->second + " " + b;
  else if (cmp.size() == 3 && cmp[2] == 'u' && signs.count(cmp.substr(0, 2)))
    e = "(__builtin_isunordered(" + a + ", " + b + ") || " + a + " " + signs.at(cmp.substr(0, 2)) + " " + b + ")";
  else unknown();
  string combine;
  for (const char *k : {"and", "or", "xor"})
    if (has(k)) combine = k;
  string c = combine.empty() ? "" : rd(o.at(3), {'p', 8}), sep = combine == "and" ? " & " : combine == "or" ? " | " : " ^ ";
  out += "{ u8 c_ = (" + e + ") != 0; ";
  if (set) {
    Type d = types.at(0);
    string v = combine.empty() ? "c_" : "(c_" + sep + c + ")";
    wr(o[0], d.kind == 'f' ? v + " ? 1.0f : 0.0f" : v + " ? 0xffffffffu : 0u", d);
  } else {
    Operand p, q;
    bool second = false;
    for (auto &tok : o[0])
      if (tok.s == "|") second = true;
      else (second ? q : p).push_back(tok);
    if (!combine.empty()) out += "u8 k_ = " + c + "; ";
    wr(p, combine.empty() ? "c_" : "c_" + sep + "k_", {'p', 8});
    if (second) wr(q, combine.empty() ? "!c_" : "!c_" + sep + "k_", {'p', 8});
  }
  out += "} ";
}

void Translator::move(vector<Operand> &o, Type ty) {
  if (o.size() < 2) fail(line, "operands are missing: " + opcode);
  bool to = !o[0].empty() && o[0][0].s == "{", from = !o[1].empty() && o[1][0].s == "{";
  if (!to && !from) return wr(o[0], rd(o[1], ty), ty);
  Type whole{'u', ty.bits};
  string W = int_name(whole, false);
  if (from) {
    auto e = elements(o[1]);
    int n = ty.bits / (int)e.size();
    string v;
    for (size_t i = 0; i < e.size(); i++)
      v += (i ? " | " : "") + string("(") + W + ")" + rd(e[i], {'u', n < 16 ? 16 : n}) + " << " + std::to_string(i * n);
    if (!to) return wr(o[0], v, whole);
    fail(line, "a vector to a vector");
  }
  auto e = elements(o[0]);
  int n = ty.bits / (int)e.size();
  out += "{ " + W + " w_ = " + rd(o[1], whole) + "; ";
  for (size_t i = 0; i < e.size(); i++) wr(e[i], "(u" + std::to_string(n) + ")(w_ >> " + std::to_string(i * n) + ")", {'u', n});
  out += "} ";
}

void Translator::conversion(vector<Operand> &o) {
  if (o.size() < 2) fail(line, "operands are missing: " + opcode);
  if (has("pack")) {
    Type d = types.at(0), a = types.at(1);
    if (d.bits != 16 || a.kind != 's') unknown();
    string T = int_name(d, d.kind == 's'), lo = d.kind == 's' ? "-32768" : "0", hi = d.kind == 's' ? "32767" : "65535";
    return wr(o[0],
              "(u32)(u16)SATI(" + T + ", " + rd(o[1], a) + ", " + lo + ", " + hi + ") << 16 | (u16)SATI(" + T + ", " + rd(o[2], a) + ", " +
                  lo + ", " + hi + ")",
              {'u', 32});
  }
  if (has("tf32")) {
    if (types.size() != 1 || types[0].kind != 'f' || types[0].bits != 32 || has("satfinite")) unknown();
    m.tensor = true;
    string x = rd(o[1], types[0]);
    if (has("relu")) x = "MAXF(" + x + ", 0.0f)";
    return wr(o[0], string(has("rna") ? "TF32A(" : has("rz") ? "TF32Z(" : "TF32N(") + x + ")", {'u', 32});
  }
  if (types.size() < 2) unknown();
  Type d = types[0], a = types[1];
  bool df = d.kind == 'f', af = a.kind == 'f', dh = d.kind == 'h' || d.kind == 'B', ah = a.kind == 'h' || a.kind == 'B';
  char r = rounding();
  string R = string(", '") + (r ? r : 'n') + "')";
  if (d.kind == 'H' || d.kind == 'X') {  // two of 32 bits to a pair
    string to = d.kind == 'X' ? (r == 'z' ? "BBZ(" : "BBU(") : "HB(";
    if (r == 'z' && d.kind == 'X') m.tensor = true, r = 0;
    if (r || o.size() < 3 || a.bits != 32) unknown();
    auto v = [&](size_t i) {
      string x = rd(o[i], a);
      return has("relu") ? "MAXF(" + x + ", 0.0f)" : x;
    };
    return wr(o[0], "(u32)" + to + v(1) + ") << 16 | " + to + v(2) + ")", {'u', 32});
  }
  string v = ah ? half(o[1], a) : flush(rd(o[1], a), a);
  bool from_float = af || ah, to_float = df || dh;
  string whole;
  if (has("rni")) whole = "rint";
  else if (has("rzi")) whole = "trunc";
  else if (has("rmi")) whole = "floor";
  else if (has("rpi")) whole = "ceil";
  if (from_float && !to_float) {
    if (whole.empty()) unknown();
    return wr(o[0], "TO_" + c_type(d) + "(__builtin_" + whole + "((double)" + v + "))", d);
  }
  if (!from_float && !to_float) {
    if (has("sat")) {
      string T = c_type(d);
      string lo = d.kind == 's' ? "(s128)INT" + std::to_string(d.bits) + "_MIN" : "(s128)0",
             hi = string("(s128)") + (d.kind == 's' ? "INT" : "UINT") + std::to_string(d.bits) + "_MAX";
      v = "SATI(" + T + ", " + v + ", " + lo + ", " + hi + ")";
    }
    return wr(o[0], "(" + c_type(d) + ")" + v, d);
  }
  if (!from_float) {
    string wide = a.kind == 's' ? "s64" : "u64";
    if (dh) return wr(o[0], d.kind == 'h' ? "HBD((double)" + v + ")" : "BBU((float)" + v + ")", {'u', 16});
    return wr(o[0], r ? "vg_" + wide + "_to_f" + std::to_string(d.bits) + "((" + wide + ")" + v + R : "(" + c_type(d) + ")" + v, d);
  }
  // Between formats of floating point
  if (!whole.empty()) v = "__builtin_" + whole + "(" + v + ")";
  if (dh) {
    if (r == 'z' && d.kind == 'B') {
      m.tensor = true;
      return wr(o[0], "BBZ((float)" + v + ")", {'u', 16});
    }
    if (has("sat")) v = "SATD(" + v + ")";
    if (r) return wr(o[0], string(d.kind == 'h' ? "HBR(" : "BBR(") + v + R, {'u', 16});
    if (d.kind == 'h') return wr(o[0], a.bits == 64 ? "HBD(" + v + ")" : "HB(" + v + ")", {'u', 16});
    return wr(o[0], "BBU(" + v + ")", {'u', 16});
  }
  if (d.bits == 32 && a.bits == 64) v = r ? "vg_f64_to_f32(" + v + R : "(float)" + v;
  if (d.bits == 32) {
    v = "NANF((float)(" + v + "))";
    if (has("ftz")) v = "FTZ(" + v + ")";
    if (has("sat")) v = "SATF(" + v + ")";
  } else {
    v = "NAND((double)(" + v + "))";
    if (has("sat")) v = "SATD(" + v + ")";
  }
  wr(o[0], v, d);
}

}  // namespace ptx
