// The types of PTX, the C variables that registers become, and literals.
#pragma once
#include <cstdint>

#include "tokens.hpp"

namespace ptx {

struct Type {
  char kind = 0;  // u s b f p, h (f16), B (bf16), H (f16x2), X (bf16x2)
  int bits = 0;
  int bytes() const { return kind == 'p' ? 1 : bits / 8; }
  bool floating() const { return kind == 'f'; }
};

bool type_of(const string &s, Type &t);
int class_of(Type t);  // of a C variable: 0 a predicate, 16 32 64 128 integers, -32 float, -64 double
string class_name(int c);
string int_name(Type t, bool is_signed);
string c_type(Type t);  // in which a value of this PTX type is computed

bool number(const string &s);
uint64_t integer(const string &text, int line);
bool float_literal(const string &s);
bool double_literal(const string &s);
string hex(uint64_t v);

using Operand = vector<Token>;
string text_of(const Operand &o);

}  // namespace ptx
