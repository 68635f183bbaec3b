// The module: variables, and functions with their parameters.
#include "translator.hpp"

#include <cctype>
#include <cstring>

namespace ptx {

const Token &Translator::peek(size_t ahead) {
  static Token none{"", 0, 'p'};
  return at + ahead < t.size() ? t[at + ahead] : none;
}

Token Translator::next() {
  if (at >= t.size()) fail(t.empty() ? 0 : t.back().line, "the text ends too early");
  return t[at++];
}

bool Translator::take(const string &s) {
  if (peek().s == s && peek().kind != 's') {
    at++;
    return true;
  }
  return false;
}

void Translator::expect(const string &s) {
  Token x = next();
  if (x.s != s) fail(x.line, "'" + s + "' was expected, not '" + x.s + "'");
}

void Translator::parse() {
  while (at < t.size()) {
    Token x = next();
    if (x.s == ".version" || x.s == ".address_size") next();
    else if (x.s == ".target") {
      next();
      while (take(",")) next();
    } else if (x.s == ".section") {
      next();
      expect("{");
      skip_braces();
    } else if (x.s == ".pragma") {
      while (!take(";")) next();
    } else if (x.s == ".alias") {
      string alias = next().s;
      expect(",");
      aliases[alias] = next().s;
      take(";");
    } else if (x.s == ".visible" || x.s == ".weak" || x.s == ".common") continue;
    else if (x.s == ".extern") {
      if (peek().s == ".func" || peek().s == ".entry") continue;
      variable(next(), true);
    } else if (x.s == ".entry") function(true);
    else if (x.s == ".func") function(false);
    else if (x.s == ".global" || x.s == ".const" || x.s == ".shared") variable(x, false);
    else if (x.s == ";") continue;
    else fail(x.line, "not understood: " + x.s);
  }
}

void Translator::skip_braces() {
  for (int depth = 1; depth;) {
    Token x = next();
    if (x.kind == 'p' && x.s == "{") depth++;
    if (x.kind == 'p' && x.s == "}") depth--;
  }
}

char Translator::space_of(const string &s, int line) {
  if (s == ".global") return 'g';
  if (s == ".const") return 'c';
  if (s == ".shared") return 's';
  fail(line, "no variables in " + s);
}

void Translator::variable(Token where, bool external) {
  Var v;
  v.space = space_of(where.s, where.line);
  v.external = external;
  Type type{};
  while (peek().s[0] == '.') {
    Token x = next();
    if (x.s == ".align") v.align = (uint32_t)integer(next().s, x.line);
    else if (x.s == ".attribute") {
      while (!take(")")) next();
    } else if (x.s == ".managed" || x.s == ".unified") continue;
    else if (!type_of(x.s.substr(1), type)) fail(x.line, "not understood in a variable: " + x.s);
  }
  if (v.align < (uint32_t)type.bytes()) v.align = type.bytes();
  do {
    Token name = next();
    v.name = name.s;
    v.init.clear(), v.relocs.clear();
    uint64_t count = 1;
    bool open = false, array = false;
    while (take("[")) {
      array = true;
      if (take("]")) {
        open = true;
        continue;
      }
      count *= integer(next().s, name.line);
      expect("]");
    }
    (void)array;
    if (take("=")) {
      initializer(v, type);
      if (open) count = v.init.size() / type.bytes();
    } else if (open) count = 0;
    v.size = count * type.bytes();
    if (!v.init.empty()) v.init.resize(v.size);
    auto known = var_index.find(v.name);
    if (known != var_index.end()) {
      Var &old = m.vars[known->second];
      if (old.external && !v.external) {
        int index = old.index;
        old = v;
        old.index = index;
      }
    } else {
      v.index = v.space == 's' ? m.shareds++ : m.globals++;
      var_index[v.name] = (int)m.vars.size();
      m.vars.push_back(v);
    }
  } while (take(","));
  expect(";");
}

void Translator::initializer(Var &v, Type type) {
  auto put = [&](uint64_t bits, int bytes) {
    for (int i = 0; i < bytes; i++) v.init.push_back(i < 8 ? (uint8_t)(bits >> (8 * i)) : 0);
  };
  auto value = [&]() {
    Token x = next();
    bool negative = false;
    if (x.s == "-") negative = true, x = next();
    if (float_literal(x.s)) return put(std::stoull(x.s.substr(2), nullptr, 16) ^ (negative ? 1ull << 31 : 0), 4);
    if (double_literal(x.s)) return put(std::stoull(x.s.substr(2), nullptr, 16) ^ (negative ? 1ull << 63 : 0), 8);
    if (number(x.s)) {
      uint64_t n = integer(x.s, x.line);
      if (peek().s == "(") fail(x.line, "bytes of an address in an initializer");
      return put(negative ? 0 - n : n, type.bytes());
    }
    bool generic = x.s == "generic";
    if (generic) expect("("), x = next();
    int64_t addend = 0;
    if (generic) expect(")");
    if (take("+")) addend = (int64_t)integer(next().s, x.line);
    v.relocs.push_back({v.init.size(), x.s, addend});
    put(0, type.bytes());
  };
  if (!take("{")) return value();
  for (int depth = 1; depth;) {
    if (take("{")) depth++;
    else if (take("}")) depth--;
    else if (take(",")) continue;
    else value();
  }
}

Param Translator::parameter() {
  Param p{"", 0, 1, 0};
  Type type{};
  Token x = next();
  if (x.s != ".param" && x.s != ".reg") fail(x.line, "a parameter was expected, not " + x.s);
  while (peek().s[0] == '.') {
    x = next();
    if (x.s == ".align") p.align = (uint32_t)integer(next().s, x.line);
    else if (x.s == ".ptr") {
      while (peek().s == ".global" || peek().s == ".shared" || peek().s == ".const" || peek().s == ".local" || peek().s == ".align") {
        if (next().s == ".align") next();
      }
    } else if (!type_of(x.s.substr(1), type)) fail(x.line, "not understood in a parameter: " + x.s);
  }
  p.name = next().s;
  p.size = type.bytes();
  if (take("[")) {
    p.size = take("]") ? 0 : p.size * (uint32_t)integer(next().s, x.line);
    if (p.size) expect("]");
  }
  if (p.align < (uint32_t)type.bytes()) p.align = type.bytes();
  return p;
}

vector<Param> Translator::parameters() {
  vector<Param> out;
  uint32_t offset = 0;
  while (!take(")")) {
    Param p = parameter();
    offset = (offset + p.align - 1) / p.align * p.align;
    p.offset = offset;
    offset += p.size;
    out.push_back(p);
    take(",");
  }
  return out;
}

void Translator::function(bool entry) {
  Function f;
  f.entry = entry;
  while (peek().s == ".attribute") {
    next();
    while (!take(")")) next();
  }
  if (take("(")) f.results = parameters();
  Token name = next();
  f.name = name.s;
  if (take("(")) f.params = parameters();
  if (!f.params.empty()) f.param_bytes = f.params.back().offset + f.params.back().size;
  while (peek().s != "{" && peek().s != ";") {
    Token x = next();
    if (x.s == ".maxntid" || x.s == ".reqntid") {
      uint32_t n[3] = {1, 1, 1};
      int i = 0;
      do n[i++] = (uint32_t)integer(next().s, x.line);
      while (i < 3 && take(","));
      f.max_threads = n[0] * n[1] * n[2];
      if (x.s == ".reqntid") memcpy(f.required, n, sizeof n);
    }
  }
  if (take(";")) {
    if (!function_index.count(f.name)) function_index[f.name] = (int)m.functions.size(), m.functions.push_back(f);
    return;
  }
  expect("{");
  f.defined = true;
  int index;
  auto known = function_index.find(f.name);
  if (known == function_index.end()) index = function_index[f.name] = (int)m.functions.size(), m.functions.push_back(f);
  else {
    index = known->second;
    if (m.functions[index].defined) {
      skip_braces();
      return;
    }  // weak, and there already
    m.functions[index] = f;
  }
  body(f);
  m.functions[index] = f;
}

}  // namespace ptx
