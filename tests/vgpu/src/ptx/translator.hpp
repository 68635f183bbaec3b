// Translates PTX to C: registers become variables, labels stay labels, and everything that touches memory or other threads becomes a call
// into the engine with the line of the PTX. What is not known is translated to a call that ends the launch and says so, with its line.
#pragma once
#include <map>
#include <set>

#include "ptx.hpp"
#include "types.hpp"

namespace ptx {

struct Symbol {
  char kind;  // 'r' register, 'l' local array, 'a' parameter, array or pointer
  int cls = 0;
};

struct Translator {
  Module m;
  vector<Token> t;
  size_t at = 0;
  std::map<string, int> var_index, function_index;
  const Token &peek(size_t ahead = 0);
  Token next();
  bool take(const string &s);
  void expect(const string &s);

  // the module
  void parse();
  std::map<string, string> aliases;
  void skip_braces();
  char space_of(const string &s, int line);
  // After the space: [.align n] .type name[dims] [= init] {, name...};
  void variable(Token where, bool external);
  void initializer(Var &v, Type type);
  Param parameter();
  vector<Param> parameters();
  void function(bool entry);

  // a function
  Function *f = nullptr;
  string out;
  vector<std::map<string, Symbol>> scopes;
  std::map<string, vector<string>> branch_tables;
  int temporary = 0;
  int line = 0;
  const Symbol *find(const string &name);
  void body(Function &fn);
  void registers(const string &of);
  void array(bool local);

  // operands
  string special(const string &s);
  // The address of a symbol, or "".
  string symbol_address(const string &name);
  string function_name(const string &name);
  string convert(const string &e, int cls, Type to);
  string rd(const Operand &o, Type to);
  void wr(const Operand &d, const string &e, Type type);
  // {a, b, c, d} taken apart
  vector<Operand> elements(const Operand &o);
  // [base + offset] as an expression of 64 bits
  string address(const Operand &o);

  // instructions
  vector<string> parts;
  vector<Type> types;
  string opcode;
  bool has(const char *s);
  [[noreturn]] void unknown();
  void instruction(Token x);
  string here();

  // the registers of wgmma (in_flight.cpp)
  std::map<string, int> flights;  // those that must be watched, and where in flight_
  std::set<string> fresh;         // written since the last wgmma.fence, in the order of the text, which wgmma may not read yet
  void find_flights();
  void watch(const vector<Operand> &o);
  void take_off(const vector<Operand> &a, const vector<Operand> &d);
  void wgmma(vector<Operand> &o);
  void mma(vector<Operand> &o);
  void matrix(vector<Operand> &o, bool load);
  void copies(vector<Operand> &o);
  void mbarrier(vector<Operand> &o);
  char rounding();
  string space();
  string flush(const string &e, Type ty);
  // A result of floating-point arithmetic: NaN made the chip's, flushed, saturated.
  string finish(const string &e, Type ty);
  string half(const Operand &o, Type ty);
  void emit(vector<Operand> &o);
  void half_arithmetic(vector<Operand> &o, Type ty);
  void float_arithmetic(vector<Operand> &o, Type ty);
  void integer_arithmetic(vector<Operand> &o, Type ty);
  void compare(vector<Operand> &o, bool set);
  void move(vector<Operand> &o, Type ty);
  void conversion(vector<Operand> &o);
  string strength(const string &space);
  void load(vector<Operand> &o, Type ty);
  void store(vector<Operand> &o, Type ty);
  void atomic(vector<Operand> &o, Type ty, bool red);
  static vector<Operand> group(const Operand &o);
  void call(vector<Operand> &o);
  std::set<string> calls;
  string prototype(const Function &fn);
  void assemble();
};

}  // namespace ptx
