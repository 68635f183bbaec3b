// Calls, and the whole translation put together.
#include "translator.hpp"

#include <cctype>
#include <cstring>

namespace ptx {

void Translator::call(vector<Operand> &o) {
  size_t i = 0;
  vector<Operand> results, arguments;
  if (i < o.size() && !o[i].empty() && o[i][0].s == "(") results = group(o[i++]);
  if (i >= o.size()) fail(line, "a call of nothing");
  Operand callee = o[i++];
  if (i < o.size() && !o[i].empty() && o[i][0].s == "(") arguments = group(o[i++]);
  string name = callee[0].s;
  if (aliases.count(name)) name = aliases[name];
  out += "{ ";
  string after;
  auto pointer = [&](const Operand &a, bool result) {
    const Symbol *s = find(a[0].s);
    if (s && s->kind == 'a') return "(u8 *)" + c_name(a[0].s);
    string v = "v" + std::to_string(temporary++) + "_";
    if (result) {
      if (!s) fail(line, "not a register: " + text_of(a));
      out += class_name(s->cls) + " " + v + "; ";
      after += c_name(a[0].s) + " = " + v + "; ";
    } else if (s && s->kind == 'r') out += class_name(s->cls) + " " + v + " = " + c_name(a[0].s) + "; ";
    else out += "u64 " + v + " = " + rd(a, {'u', 64}) + "; ";
    return "(u8 *)&" + v;
  };
  vector<string> pass;
  for (auto &r : results) pass.push_back(pointer(r, true));
  for (auto &a : arguments) pass.push_back(pointer(a, false));
  string list = "t";
  for (auto &p : pass) list += ", " + p;
  size_t n = results.size();
  auto value = [&](size_t k, const char *T) { return string("*(") + T + " *)(" + pass.at(n + k) + ")"; };
  if (name == "vprintf") out += "*(u32 *)" + pass.at(0) + " = vg_vprintf(" + value(0, "u64") + ", " + value(1, "u64") + "); ";
  else if (name == "__assertfail")
    out += "vg_assertfail(" + value(0, "u64") + ", " + value(1, "u64") + ", " + value(2, "u32") + ", " + value(3, "u64") + ", " + here() +
           "); ";
  else if (name == "malloc") out += "*(u64 *)" + pass.at(0) + " = vg_malloc(" + value(0, "u64") + "); ";
  else if (name == "free") out += "vg_free(" + value(0, "u64") + "); ";
  else if (const Symbol *s = find(name); s && s->kind == 'r') {
    string signature = "void (*)(VgThread *";
    for (size_t k = 0; k < pass.size(); k++) signature += ", u8 *";
    out += "((" + signature + "))" + c_name(name) + ")(" + list + "); ";
  } else {
    if (!function_index.count(name)) fail(line, "a call of an unknown function: " + name);
    f->uses.insert(name);
    calls.insert(name);
    out += "FUNC_" + c_name(name) + "(" + list + "); ";
  }
  out += after + "} ";
}

string Translator::prototype(const Function &fn) {
  if (fn.entry) return "void ENTRY_" + c_name(fn.name) + "(VgThread *t, const u8 *P)";
  string s = "static void FUNC_" + c_name(fn.name) + "(VgThread *t";
  for (auto &p : fn.results) s += ", u8 *" + c_name(p.name);
  for (auto &p : fn.params) s += ", u8 *" + c_name(p.name);
  return s + ")";
}

void Translator::assemble() {
  string &c = m.code;
  c = m.tensor ? "#include \"tensor.h\"\n" : "#include \"device.h\"\n";
  c += "u64 VGSYM[" + std::to_string(m.globals + 1) + "];\nu32 VGSHARED[" + std::to_string(m.shareds + 1) + "];\n";
  for (auto &fn : m.functions) c += prototype(fn) + ";\n";
  for (auto &fn : m.functions) {
    c += prototype(fn) + " {\nu32 CC = 0;\n(void)CC;\n";
    if (fn.entry)
      for (auto &p : fn.params) c += "const u8 *" + c_name(p.name) + " = P + " + std::to_string(p.offset) + ";\n";
    if (fn.defined) c += fn.body;
    else c += "vg_unsupported(\"call of " + fn.name + ", which is only declared\", 0);\n";
    c += "}\n";
  }
}

string c_name(const string &name) {
  string s;
  for (char c : name) s += c == '%' ? "R_" : c == '$' ? "D_" : c == '.' ? "_d" : string(1, c);
  static const std::set<string> taken = {"t", "P", "CC", "s", "auto", "if", "for", "int", "char", "float", "double", "do", "goto", "main"};
  return taken.count(s) ? s + "__" : s;
}

Module translate(const string &text) {
  Translator tr;
  tr.t = tokens_of(text);
  tr.m.lines = split(text, '\n');
  tr.parse();
  tr.assemble();
  return std::move(tr.m);
}

}  // namespace ptx
