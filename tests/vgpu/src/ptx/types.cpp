#include "types.hpp"

#include <cctype>
#include <cstdlib>
#include <cstring>

namespace ptx {

bool type_of(const string &s, Type &t) {
  if (s == "pred") {
    t = {'p', 8};
    return true;
  }
  if (s == "f16") {
    t = {'h', 16};
    return true;
  }
  if (s == "bf16") {
    t = {'B', 16};
    return true;
  }
  if (s == "f16x2") {
    t = {'H', 32};
    return true;
  }
  if (s == "bf16x2") {
    t = {'X', 32};
    return true;
  }
  if (s.size() < 2 || !strchr("usbf", s[0])) return false;
  for (size_t i = 1; i < s.size(); i++)
    if (!isdigit((unsigned char)s[i])) return false;
  int bits = atoi(s.c_str() + 1);
  if (bits != 8 && bits != 16 && bits != 32 && bits != 64 && bits != 128) return false;
  t = {s[0], bits};
  return true;
}

// The class of a C variable: 0 a predicate, 16 32 64 128 integers, -32 float, -64 double.
int class_of(Type t) {
  if (t.kind == 'p') return 0;
  if (t.kind == 'f') return -t.bits;
  return t.bits < 16 ? 16 : t.bits;
}

string class_name(int c) {
  switch (c) {
    case 0: return "u8";
    case -32: return "float";
    case -64: return "double";
    default: return "u" + std::to_string(c);
  }
}

string int_name(Type t, bool is_signed) { return (is_signed ? "s" : "u") + std::to_string(t.bits); }

// The C type in which a value of this PTX type is computed.
string c_type(Type t) {
  if (t.kind == 'p') return "u8";
  if (t.kind == 'f') return t.bits == 32 ? "float" : "double";
  return int_name(t, t.kind == 's');
}

bool number(const string &s) { return !s.empty() && isdigit((unsigned char)s[0]); }

uint64_t integer(const string &text, int line) {
  string s = text;
  while (!s.empty() && (s.back() == 'U' || s.back() == 'u')) s.pop_back();
  if (s.size() > 2 && s[0] == '0' && (s[1] == 'b' || s[1] == 'B') && s.find_first_not_of("01", 2) == string::npos)
    return std::stoull(s.substr(2), nullptr, 2);
  size_t used = 0;
  uint64_t v = 0;
  try {
    v = std::stoull(s, &used, 0);
  } catch (...) { fail(line, "a number was expected, not " + text); }
  if (used != s.size()) fail(line, "a number was expected, not " + text);
  return v;
}

bool float_literal(const string &s) { return s.size() == 10 && s[0] == '0' && (s[1] == 'f' || s[1] == 'F'); }
bool double_literal(const string &s) { return s.size() == 18 && s[0] == '0' && (s[1] == 'd' || s[1] == 'D'); }

string hex(uint64_t v) {
  char b[32];
  snprintf(b, sizeof b, "0x%llxull", (unsigned long long)v);
  return b;
}

string text_of(const Operand &o) {
  string s;
  for (auto &t : o) s += t.s;
  return s;
}

}  // namespace ptx
