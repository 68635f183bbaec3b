// Operands as C expressions, and how they are written to.
#include "translator.hpp"

#include <cctype>
#include <cstring>

namespace ptx {

string Translator::special(const string &s) {
  static const std::map<string, string> table = {{"%tid.x", "t->tid[0]"},
                                                 {"%tid.y", "t->tid[1]"},
                                                 {"%tid.z", "t->tid[2]"},
                                                 {"%ntid.x", "t->b->ntid[0]"},
                                                 {"%ntid.y", "t->b->ntid[1]"},
                                                 {"%ntid.z", "t->b->ntid[2]"},
                                                 {"%ctaid.x", "t->b->ctaid[0]"},
                                                 {"%ctaid.y", "t->b->ctaid[1]"},
                                                 {"%ctaid.z", "t->b->ctaid[2]"},
                                                 {"%nctaid.x", "t->b->nctaid[0]"},
                                                 {"%nctaid.y", "t->b->nctaid[1]"},
                                                 {"%nctaid.z", "t->b->nctaid[2]"},
                                                 {"%laneid", "t->lane"},
                                                 {"%warpid", "t->warp"},
                                                 {"%nwarpid", "64u"},
                                                 {"WARP_SZ", "32u"},
                                                 {"%smid", "0u"},
                                                 {"%nsmid", "132u"},
                                                 {"%gridid", "0ull"},
                                                 {"%lanemask_eq", "(1u << t->lane)"},
                                                 {"%lanemask_lt", "((1u << t->lane) - 1)"},
                                                 {"%lanemask_le", "(0xffffffffu >> (31 - t->lane))"},
                                                 {"%lanemask_gt", "(~(0xffffffffu >> (31 - t->lane)))"},
                                                 {"%lanemask_ge", "(~((1u << t->lane) - 1))"},
                                                 {"%clock", "(u32)vg_clock()"},
                                                 {"%clock_hi", "(u32)(vg_clock() >> 32)"},
                                                 {"%clock64", "vg_clock()"},
                                                 {"%globaltimer", "vg_timer()"},
                                                 {"%globaltimer_lo", "(u32)vg_timer()"},
                                                 {"%globaltimer_hi", "(u32)(vg_timer() >> 32)"},
                                                 {"%dynamic_smem_size", "t->b->dynamic_size"},
                                                 {"%total_smem_size", "t->b->shared_size"},
                                                 {"%aggr_smem_size", "t->b->shared_size"},
                                                 {"%cluster_ctaid.x", "0u"},
                                                 {"%cluster_ctaid.y", "0u"},
                                                 {"%cluster_ctaid.z", "0u"},
                                                 {"%cluster_ctarank", "0u"},
                                                 {"%cluster_nctarank", "1u"},
                                                 {"%cluster_nctaid.x", "1u"},
                                                 {"%cluster_nctaid.y", "1u"},
                                                 {"%cluster_nctaid.z", "1u"},
                                                 {"%clusterid.x", "t->b->ctaid[0]"},
                                                 {"%is_explicit_cluster", "0"},
                                                 {"%tid", "t->tid[0]"},
                                                 {"%ctaid", "t->b->ctaid[0]"},
                                                 {"%ntid", "t->b->ntid[0]"},
                                                 {"%nctaid", "t->b->nctaid[0]"}};
  auto i = table.find(s);
  return i == table.end() ? "" : i->second;
}

string Translator::symbol_address(const string &name) {
  if (const Symbol *s = find(name)) return s->kind == 'r' ? "" : "(u64)" + c_name(name);
  auto v = var_index.find(name);
  if (v != var_index.end()) {
    f->uses.insert(name);
    Var &var = m.vars[v->second];
    return var.space == 's' ? "(u64)VGSHARED[" + std::to_string(var.index) + "]" : "VGSYM[" + std::to_string(var.index) + "]";
  }
  string real = aliases.count(name) ? aliases[name] : name;
  if (function_index.count(real)) {
    f->uses.insert(real);
    return "(u64)&" + function_name(real);
  }
  return "";
}

string Translator::function_name(const string &name) {
  return (m.functions[function_index[name]].entry ? "ENTRY_" : "FUNC_") + c_name(name);
}

string Translator::convert(const string &e, int cls, Type to) {
  if (to.kind == 'p') return e;
  if (to.kind == 'f' && to.bits == 32) return cls == -32 ? e : cls == -64 ? "(float)" + e : "BF((u32)" + e + ")";
  if (to.kind == 'f') return cls == -64 ? e : cls == -32 ? "(double)" + e : "BD((u64)" + e + ")";
  string bits = cls == -32 ? "BU(" + e + ")" : cls == -64 ? "BL(" + e + ")" : e;
  return "(" + int_name(to, to.kind == 's') + ")" + bits;
}

string Translator::rd(const Operand &o, Type to) {
  if (o.empty()) fail(line, "an operand is missing");
  size_t i = 0;
  bool negative = false, inverted = false;
  if (o[0].s == "-") negative = true, i++;
  if (o[0].s == "!") inverted = true, i++;
  if (i >= o.size()) fail(line, "an operand is missing");
  const string &s = o[i].s;
  string e;
  if (float_literal(s)) {
    uint64_t bits = std::stoull(s.substr(2), nullptr, 16) ^ (negative ? 1ull << 31 : 0);
    e = to.kind == 'f' && to.bits == 32 ? "BF(" + hex(bits) + ")" : "(" + c_type(to) + ")" + hex(bits);
    return "(" + e + ")";
  }
  if (double_literal(s)) {
    uint64_t bits = std::stoull(s.substr(2), nullptr, 16) ^ (negative ? 1ull << 63 : 0);
    e = to.kind == 'f' ? (to.bits == 64 ? "BD(" + hex(bits) + ")" : "((float)BD(" + hex(bits) + "))") : "(" + c_type(to) + ")" + hex(bits);
    return "(" + e + ")";
  }
  if (number(s)) {
    if (to.kind == 'f') return (negative ? "-(" : "(") + c_type(to) + ")" + s + (s.find('.') == string::npos ? ".0" : "") + ")";
    uint64_t n = integer(s, line);
    if (to.kind == 'p') return n ? "((u8)1)" : "((u8)0)";  // true is written -1, and 1
    return "((" + c_type(to) + ")" + hex(negative ? 0 - n : n) + ")";
  }
  const Symbol *sym = find(s);
  if (sym && sym->kind == 'r') {
    e = convert(c_name(s), sym->cls, to);
    if (inverted) return "(!" + e + ")";
    if (negative) return "(-" + e + ")";
    return "(" + e + ")";
  }
  e = special(s);
  if (e.empty()) {
    e = symbol_address(s);
    if (!e.empty() && i + 2 < o.size() && (o[i + 1].s == "+" || o[i + 1].s == "-"))
      e = "(" + e + " " + o[i + 1].s + " " + hex(integer(o[i + 2].s, line)) + ")";
  }
  if (e.empty()) fail(line, "not known: " + s);
  return "((" + c_type(to) + ")(" + e + "))";
}

void Translator::wr(const Operand &d, const string &e, Type type) {
  if (d.empty()) fail(line, "a destination is missing");
  if (d[0].s == "_") {
    out += "(void)(" + e + "); ";
    return;
  }
  const Symbol *s = find(d[0].s);
  if (!s || s->kind != 'r') fail(line, "not a register: " + text_of(d));
  string name = c_name(d[0].s);
  if (type.kind == 'p') {
    out += name + " = (" + e + ") != 0; ";
    return;
  }
  if (type.kind == 'f' && type.bits == 32) out += name + " = " + (s->cls == -32 ? "" : s->cls == -64 ? "(double)" : "BU") + "(" + e + "); ";
  else if (type.kind == 'f') out += name + " = " + (s->cls == -64 ? "" : s->cls == -32 ? "(float)" : "BL") + "(" + e + "); ";
  else if (s->cls == -32) out += name + " = BF((u32)(" + e + ")); ";
  else if (s->cls == -64) out += name + " = BD((u64)(" + e + ")); ";
  else out += name + " = (" + class_name(s->cls) + ")(" + int_name(type, type.kind == 's') + ")(" + e + "); ";
}

vector<Operand> Translator::elements(const Operand &o) {
  if (o.empty() || o[0].s != "{") return {o};
  vector<Operand> out(1);
  for (size_t i = 1; i + 1 < o.size(); i++)
    if (o[i].s == ",") out.emplace_back();
    else out.back().push_back(o[i]);
  return out;
}

string Translator::address(const Operand &o) {
  if (o.size() < 3 || o[0].s != "[") fail(line, "not an address: " + text_of(o));
  const string &s = o[1].s;
  string e;
  if (number(s)) e = hex(integer(s, line));
  else {
    const Symbol *sym = find(s);
    if (sym && sym->kind == 'r') e = sym->cls == 64 ? c_name(s) : "(u64)" + c_name(s);
    else e = symbol_address(s);
    if (e.empty()) fail(line, "not known: " + s);
  }
  size_t i = 2;
  while (i + 1 < o.size() && (o[i].s == "+" || o[i].s == "-")) {
    bool minus = o[i].s == "-";
    i++;
    if (o[i].s == "-") minus = !minus, i++;
    uint64_t n = integer(o[i].s, line);
    e = "(" + e + " + " + hex(minus ? 0 - n : n) + ")";
    i++;
  }
  if (o[i].s != "]") fail(line, "not an address: " + text_of(o));
  return e;
}

char Translator::rounding() { return has("rz") ? 'z' : has("rm") ? 'm' : has("rp") ? 'p' : 0; }

string Translator::space() {
  for (size_t i = 1; i < parts.size(); i++) {
    string s = parts[i].substr(0, parts[i].find(':'));
    if (s == "global" || s == "shared" || s == "local" || s == "param") return s;
    if (s == "const") return "global";
  }
  return "generic";
}

string Translator::flush(const string &e, Type ty) { return has("ftz") && ty.kind == 'f' && ty.bits == 32 ? "FTZ(" + e + ")" : e; }

string Translator::finish(const string &e, Type ty) {
  string r = ty.bits == 32 ? "NANF(" + e + ")" : "NAND(" + e + ")";
  r = flush(r, ty);
  if (has("sat")) r = (ty.bits == 32 ? "SATF(" : "SATD(") + r + ")";
  if (has("relu")) r = "MAXF(" + r + ", 0.0f)";
  return r;
}

string Translator::half(const Operand &o, Type ty) { return (ty.kind == 'h' ? "BH(" : "BB(") + rd(o, {'u', 16}) + ")"; }

vector<Operand> Translator::group(const Operand &o) {  // (a, b) taken apart
  vector<Operand> list;
  for (size_t i = 1; i + 1 < o.size(); i++) {
    if (o[i].s == ",") list.emplace_back();
    else {
      if (list.empty()) list.emplace_back();
      list.back().push_back(o[i]);
    }
  }
  return list;
}

}  // namespace ptx
