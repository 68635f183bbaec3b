// The body of a function, instruction by instruction.
#include "translator.hpp"

#include <cctype>
#include <cstring>

namespace ptx {

const Symbol *Translator::find(const string &name) {
  for (auto s = scopes.rbegin(); s != scopes.rend(); ++s) {
    auto i = s->find(name);
    if (i != s->end()) return &i->second;
  }
  return nullptr;
}

void Translator::body(Function &fn) {
  f = &fn;
  out.clear();
  scopes.assign(1, {});
  branch_tables.clear();
  find_flights();
  for (auto &p : fn.params) scopes[0][p.name] = {'a'};
  for (auto &p : fn.results) scopes[0][p.name] = {'a'};
  for (int depth = 1; depth;) {
    Token x = next();
    line = x.line;
    if (x.kind == 'p' && x.s == "{") {
      depth++;
      scopes.emplace_back();
      out += "{\n";
      continue;
    }
    if (x.kind == 'p' && x.s == "}") {
      depth--;
      scopes.pop_back();
      if (depth) out += "}\n";
      continue;
    }
    if (x.kind == 'p' && x.s == ";") continue;
    if (x.s.compare(0, 4, ".reg") == 0 && (x.s.size() == 4 || x.s[4] == '.')) {  // .reg .b16, and .reg.b16
      registers(x.s.size() == 4 ? next().s : x.s.substr(4));
      continue;
    }
    if (x.s == ".local" || x.s == ".param") {
      array(x.s == ".local");
      continue;
    }
    if (x.s == ".shared" || x.s == ".global" || x.s == ".const") {
      variable(x, false);
      continue;
    }
    if (x.s == ".pragma") {
      while (!take(";")) next();
      continue;
    }
    if (x.s == ".section") {
      next();
      expect("{");
      skip_braces();
      continue;
    }
    if (peek().s == ":" && x.kind == 'w') {
      next();
      if (take(".branchtargets")) {
        do branch_tables[x.s].push_back(next().s);
        while (take(","));
        expect(";");
      } else if (peek().s == ".callprototype" || peek().s == ".calltargets") {
        while (!take(";")) next();
      } else out += c_name(x.s) + ": ;\n";
      continue;
    }
    instruction(x);
  }
  f->body = out;
  f = nullptr;
}

void Translator::registers(const string &of) {
  Type type{};
  if (!type_of(of.substr(1), type)) fail(line, "registers of type " + of);
  int cls = class_of(type);
  string list;
  auto declare = [&](const string &name) {
    scopes.back()[name] = {'r', cls};
    list += (list.empty() ? "" : ", ") + c_name(name);
    f->registers++;
  };
  do {
    string name = next().s;
    if (take("<")) {
      uint64_t n = integer(next().s, line);
      expect(">");
      for (uint64_t i = 0; i < n; i++) declare(name + std::to_string(i));
    } else declare(name);
  } while (take(","));
  expect(";");
  if (!list.empty()) out += class_name(cls) + " " + list + ";\n";
}

void Translator::array(bool local) {
  Type type{};
  uint32_t align = 1;
  while (peek().s[0] == '.') {
    Token x = next();
    if (x.s == ".align") align = (uint32_t)integer(next().s, line);
    else if (!type_of(x.s.substr(1), type)) fail(x.line, "not understood: " + x.s);
  }
  if (align < (uint32_t)type.bytes()) align = type.bytes();
  do {
    string name = next().s;
    uint64_t size = type.bytes();
    while (take("[")) {
      size *= integer(next().s, line);
      expect("]");
    }
    if (!size) size = 1;
    scopes.back()[name] = {local ? 'l' : 'a'};
    out += "u8 " + c_name(name) + "[" + std::to_string(size) + "] __attribute__((aligned(" + std::to_string(align < 16 ? 16 : align) +
           ")));\n";
    if (local) {
      f->local_bytes += (uint32_t)size;
      out += "memset(" + c_name(name) + ", 0xff, " + std::to_string(size) + ");\n";
    }
  } while (take(","));
  expect(";");
}

bool Translator::has(const char *s) {
  for (size_t i = 1; i < parts.size(); i++)
    if (parts[i] == s) return true;
  return false;
}

[[noreturn]] void Translator::unknown() { fail(line, "this instruction is not known: " + opcode); }

void Translator::instruction(Token x) {
  string guard;
  if (x.s == "@") {
    bool inverted = take("!");
    guard = string(inverted ? "!" : "") + c_name(next().s);
    x = next();
  }
  opcode = x.s;
  line = x.line;
  vector<Operand> ops(1);
  int depth = 0;
  for (;;) {
    Token y = next();
    if (y.kind == 'p') {
      if (y.s == ";" && !depth) break;
      if (y.s == "{" || y.s == "(" || y.s == "[") depth++;
      if (y.s == "}" || y.s == ")" || y.s == "]") depth--;
      if (y.s == "," && !depth) {
        ops.emplace_back();
        continue;
      }
    }
    ops.back().push_back(y);
  }
  if (ops.size() == 1 && ops[0].empty()) ops.clear();
  parts = split(opcode, '.');
  types.clear();
  for (size_t i = 1; i < parts.size(); i++) {
    Type ty;
    if (type_of(parts[i], ty)) types.push_back(ty);
  }
  string before = out;
  if (!guard.empty()) out += "if (" + guard + ") { ";
  try {
    watch(ops);
    emit(ops);
  } catch (Error &e) {
    m.refused.push_back(e.what);
    out = before + (guard.empty() ? "" : "if (" + guard + ") { ");
    out += "vg_unsupported(\"" + opcode + "\", " + std::to_string(line) + "); ";
  }
  if (!guard.empty()) out += "}";
  out += "\n";
}

string Translator::here() { return std::to_string(line); }

}  // namespace ptx
