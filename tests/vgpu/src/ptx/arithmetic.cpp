// Arithmetic, by the kind of numbers.
#include "translator.hpp"

#include <cctype>
#include <cstring>

namespace ptx {

void Translator::half_arithmetic(vector<Operand> &o, Type ty) {
  const string &op = parts[0];
  bool pair = ty.kind == 'H' || ty.kind == 'X', brain = ty.kind == 'B' || ty.kind == 'X';
  string to = brain ? "BBU(" : "HB(", from = brain ? "BB(" : "BH(";
  auto lane = [&](size_t i, int half) { return from + "(u16)(" + rd(o[i], {'u', pair ? 32 : 16}) + (half ? " >> 16))" : "))"); };
  auto one = [&](int h) {
    string e;
    if (op == "add") e = lane(1, h) + " + " + lane(2, h);
    else if (op == "sub") e = lane(1, h) + " - " + lane(2, h);
    else if (op == "mul") e = lane(1, h) + " * " + lane(2, h);
    else if (op == "fma") e = "(float)__builtin_fma((double)" + lane(1, h) + ", (double)" + lane(2, h) + ", (double)" + lane(3, h) + ")";
    else if (op == "neg") e = "-" + lane(1, h);
    else if (op == "abs") e = "__builtin_fabsf(" + lane(1, h) + ")";
    else if (op == "min") e = string(has("NaN") ? "MINNF(" : "MINF(") + lane(1, h) + ", " + lane(2, h) + ")";
    else if (op == "max") e = string(has("NaN") ? "MAXNF(" : "MAXF(") + lane(1, h) + ", " + lane(2, h) + ")";
    else if (op == "ex2") e = "exp2f(" + lane(1, h) + ")";
    else if (op == "tanh") e = "tanhf(" + lane(1, h) + ")";
    else unknown();
    if (has("sat")) e = "SATF(" + e + ")";
    if (has("relu")) e = "MAXF(" + e + ", 0.0f)";
    return "(u32)" + to + e + ")";
  };
  if (pair) wr(o[0], one(0) + " | " + one(1) + " << 16", {'u', 32});
  else wr(o[0], one(0), {'u', 16});
}

void Translator::float_arithmetic(vector<Operand> &o, Type ty) {
  const string &op = parts[0];
  bool single = ty.bits == 32;
  string F = single ? "f32" : "f64", suffix = single ? "f" : "";
  char r = rounding();
  string R = string(", '") + r + "')";
  auto in = [&](size_t i) {
    if (i >= o.size()) fail(line, "operands are missing: " + opcode);
    return flush(rd(o[i], ty), ty);
  };
  auto fn = [&](const string &name) { return name + suffix + "("; };
  string e;
  if (op == "add") e = r ? "vg_add_" + F + "(" + in(1) + ", " + in(2) + R : in(1) + " + " + in(2);
  else if (op == "sub") e = r ? "vg_add_" + F + "(" + in(1) + ", -" + in(2) + R : in(1) + " - " + in(2);
  else if (op == "mul") e = r ? "vg_mul_" + F + "(" + in(1) + ", " + in(2) + R : in(1) + " * " + in(2);
  else if (op == "fma" || op == "mad")
    e = r ? "vg_fma_" + F + "(" + in(1) + ", " + in(2) + ", " + in(3) + R : fn("__builtin_fma") + in(1) + ", " + in(2) + ", " + in(3) + ")";
  else if (op == "div") e = r ? "vg_div_" + F + "(" + in(1) + ", " + in(2) + R : in(1) + " / " + in(2);
  else if (op == "rcp") e = r ? "vg_div_" + F + "(1, " + in(1) + R : string(single ? "1.0f" : "1.0") + " / " + in(1);
  else if (op == "sqrt") e = r ? "vg_sqrt_" + F + "(" + in(1) + R : fn("__builtin_sqrt") + in(1) + ")";
  else if (op == "rsqrt") e = string(single ? "(float)" : "") + "(1.0 / __builtin_sqrt((double)" + in(1) + "))";
  else if (op == "sin") e = "(float)sin((double)" + in(1) + ")";
  else if (op == "cos") e = "(float)cos((double)" + in(1) + ")";
  else if (op == "lg2") e = "(float)log2((double)" + in(1) + ")";
  else if (op == "ex2") e = "(float)exp2((double)" + in(1) + ")";
  else if (op == "tanh") e = "(float)tanh((double)" + in(1) + ")";
  else if (op == "neg") {  // on the bits: NaN keeps them
    return wr(o[0], "-" + in(1), ty);
  } else if (op == "abs") return wr(o[0], fn("__builtin_fabs") + in(1) + ")", ty);
  else if (op == "copysign") return wr(o[0], fn("__builtin_copysign") + in(2) + ", " + in(1) + ")", ty);
  else if (op == "min" || op == "max") {
    if (has("abs")) unknown();
    string name = string(op == "min" ? "MIN" : "MAX") + (has("NaN") ? "N" : "") + (single ? "F(" : "D(");
    if (has("NaN") && !single) unknown();
    e = name + in(1) + ", " + in(2) + ")";
    if (o.size() > 3) e = name + e + ", " + in(3) + ")";
    return wr(o[0], flush(e, ty), ty);
  } else if (op == "testp") {
    string x = rd(o[1], ty), k = parts.at(1), least = single ? "1.17549435e-38f" : "2.2250738585072014e-308";
    if (k == "finite") e = "__builtin_isfinite(" + x + ")";
    else if (k == "infinite") e = "__builtin_isinf(" + x + ")";
    else if (k == "number") e = "!__builtin_isnan(" + x + ")";
    else if (k == "notanumber") e = "__builtin_isnan(" + x + ")";
    else if (k == "normal") e = "__builtin_isnormal(" + x + ")";
    else if (k == "subnormal") e = "(" + x + " != 0 && __builtin_fabs(" + x + ") < " + least + ")";
    else unknown();
    return wr(o[0], e, {'p', 8});
  } else unknown();
  wr(o[0], finish(e, ty), ty);
}

void Translator::integer_arithmetic(vector<Operand> &o, Type ty) {
  const string &op = parts[0];
  auto need = [&](size_t n) {
    if (o.size() < n) fail(line, "operands are missing: " + opcode);
  };
  Type u32t{'u', 32}, uns{'u', ty.bits}, sgn{'s', ty.bits};
  bool is_signed = ty.kind == 's', pred = ty.kind == 'p';
  string bits = std::to_string(ty.bits), U = int_name(ty, false), big = ty.bits == 64 ? "128" : ty.bits == 32 ? "64" : "32";
  auto in = [&](size_t i) {
    need(i + 1);
    return rd(o[i], ty);
  };
  auto un = [&](size_t i) {
    need(i + 1);
    return rd(o[i], pred ? ty : uns);
  };
  auto give = [&](const string &e) { wr(o[0], "(" + int_name(ty, is_signed) + ")(" + e + ")", ty); };
  auto wide = [&](size_t i) { return string("(") + (is_signed ? "s" : "u") + big + ")" + in(i); };

  if (op == "and" || op == "or" || op == "xor") {
    string c = op == "and" ? "&" : op == "or" ? "|" : "^";
    return wr(o[0], un(1) + " " + c + " " + un(2), pred ? ty : uns);
  }
  if (op == "not") return wr(o[0], pred ? "!" + un(1) : "~" + un(1), pred ? ty : uns);
  if (op == "cnot") return give(un(1) + " == 0");
  if (pred) unknown();
  if (op == "add" || op == "sub") {
    string c = op == "add" ? " + " : " - ";
    if (has("cc")) {
      out += "{ " + U + " x_ = " + un(1) + ", y_ = " + un(2) + "; CC = " + (op == "add" ? "(" + U + ")(x_ + y_) < x_" : "x_ < y_") + "; ";
      wr(o[0], "(" + U + ")(x_" + c + "y_)", uns);
      out += "} ";
      return;
    }
    if (has("sat")) {
      if (!is_signed || ty.bits != 32) unknown();
      return give("SATI(s32, (s64)" + in(1) + c + "(s64)" + in(2) + ", INT32_MIN, INT32_MAX)");
    }
    return wr(o[0], "(" + U + ")(" + un(1) + c + un(2) + ")", is_signed ? sgn : uns);
  }
  if (op == "addc" || op == "subc") {
    out += "{ u128 x_ = " + un(1) + ", y_ = " + un(2) + "; u128 r_ = x_ " + (op == "addc" ? "+ y_ + CC" : "- y_ - CC") + "; ";
    if (has("cc")) out += "CC = (r_ >> " + bits + ") & 1; ";
    wr(o[0], "(" + U + ")r_", uns);
    out += "} ";
    return;
  }
  if (op == "mul" || op == "mad" || op == "madc") {
    bool add = op != "mul";
    if (has("wide")) {
      Type d{ty.kind, ty.bits * 2};
      string D = int_name(d, is_signed), UD = int_name(d, false);
      string e = "(" + D + ")" + in(1) + " * (" + D + ")" + in(2);
      if (add) e = "(" + UD + ")(" + e + ") + " + rd(o[3], {'u', d.bits});
      return wr(o[0], "(" + D + ")(" + e + ")", d);
    }
    string e = has("hi") ? "(" + U + ")((" + wide(1) + " * " + wide(2) + ") >> " + bits + ")"
                         : "(" + U + ")(" + un(1) + " * " + (ty.bits == 16 ? "(u32)" : "") + un(2) + ")";
    if (add) {
      if (has("sat")) unknown();
      if (has("cc") || op == "madc") {
        out += "{ u128 r_ = (u128)" + e + " + " + un(3) + (op == "madc" ? " + CC" : "") + "; ";
        if (has("cc")) out += "CC = (r_ >> " + bits + ") & 1; ";
        wr(o[0], "(" + U + ")r_", uns);
        out += "} ";
        return;
      }
      e = "(" + U + ")(" + e + " + " + un(3) + ")";
    }
    return wr(o[0], e, is_signed ? sgn : uns);
  }
  if (op == "mul24" || op == "mad24") {
    if (has("hi")) unknown();
    string a = is_signed ? "((s32)(" + un(1) + " << 8) >> 8)" : "(" + un(1) + " & 0xffffff)",
           b = is_signed ? "((s32)(" + un(2) + " << 8) >> 8)" : "(" + un(2) + " & 0xffffff)";
    string e = "(u32)((s64)" + a + " * (s64)" + b + ")";
    if (op == "mad24") e += " + " + un(3);
    return wr(o[0], "(u32)(" + e + ")", uns);
  }
  if (op == "sad")
    return give("(" + in(1) + " < " + in(2) + " ? " + un(2) + " - " + un(1) + " : " + un(1) + " - " + un(2) + ") + " + un(3));
  if (op == "div" || op == "rem") {
    string name = op == "div" ? "DIV" : "REM";
    if (ty.bits == 16) return give(name + (is_signed ? "S32(" : "U32(") + in(1) + ", " + in(2) + ")");
    return give(name + (is_signed ? "S" : "U") + bits + "(" + in(1) + ", " + in(2) + ")");
  }
  if (op == "abs") return give(in(1) + " < 0 ? (" + U + ")0 - " + un(1) + " : " + un(1));
  if (op == "neg") return give("(" + U + ")0 - " + un(1));
  if (op == "min" || op == "max") {
    if (has("relu")) unknown();
    if (ty.kind == 'u' || ty.kind == 's') return give(in(1) + (op == "min" ? " < " : " > ") + in(2) + " ? " + in(1) + " : " + in(2));
    unknown();
  }
  if (op == "popc") return wr(o[0], string(ty.bits == 64 ? "__builtin_popcountll(" : "__builtin_popcount(") + un(1) + ")", u32t);
  if (op == "clz") return wr(o[0], "CLZ" + bits + "(" + un(1) + ")", u32t);
  if (op == "brev") return wr(o[0], "BREV" + bits + "(" + un(1) + ")", uns);
  if (op == "bfind") {
    string e = string("BFIND") + (is_signed ? "S" : "U") + bits + "(" + in(1) + ")";
    if (has("shiftamt")) e = "(" + e + " == 0xffffffffu ? 0xffffffffu : " + std::to_string(ty.bits - 1) + " - " + e + ")";
    return wr(o[0], e, u32t);
  }
  if (op == "bfe")
    return give(string(is_signed ? "BFES(" : "BFEU(") + in(1) + ", " + rd(o[2], u32t) + ", " + rd(o[3], u32t) + ", " + bits + ")");
  if (op == "bfi") {
    need(5);
    return wr(o[0], "(" + U + ")BFI(" + un(1) + ", " + un(2) + ", " + rd(o[3], u32t) + ", " + rd(o[4], u32t) + ", " + bits + ")", uns);
  }
  if (op == "bmsk") {
    out += "{ u32 p_ = " + rd(o[1], u32t) + ", n_ = " + rd(o[2], u32t) + "; ";
    if (has("wrap")) out += "p_ &= 31, n_ &= 31; ";
    wr(o[0], "p_ > 31 ? 0u : (n_ > 31 ? 0xffffffffu : (1u << n_) - 1) << p_", u32t);
    out += "} ";
    return;
  }
  if (op == "szext") {
    need(3);
    return give(is_signed ? "BFES(" + in(1) + ", 0, " + rd(o[2], u32t) + ", 32)" : "BFEU(" + in(1) + ", 0, " + rd(o[2], u32t) + ", 32)");
  }
  if (op == "prmt") {
    if (parts.size() > 2 && types.size() && parts.back() != "b32") unknown();
    need(4);
    return wr(o[0], "PRMT(" + rd(o[1], u32t) + ", " + rd(o[2], u32t) + ", " + rd(o[3], u32t) + ")", u32t);
  }
  if (op == "lop3") {
    if (parts.size() > 2) unknown();
    need(5);
    return wr(o[0], "LOP3(" + un(1) + ", " + un(2) + ", " + un(3) + ", " + rd(o[4], u32t) + ")", u32t);
  }
  if (op == "shf") {
    need(4);
    return wr(
        o[0],
        string(has("l") ? "SHFL_L(" : "SHFL_R(") + un(1) + ", " + un(2) + ", " + rd(o[3], u32t) + ", " + (has("wrap") ? "1" : "0") + ")",
        u32t);
  }
  if (op == "shl") {
    need(3);
    if (ty.bits == 16) return wr(o[0], "(u16)SHL32(" + un(1) + ", " + rd(o[2], u32t) + ")", uns);
    return wr(o[0], "SHL" + bits + "(" + un(1) + ", " + rd(o[2], u32t) + ")", uns);
  }
  if (op == "shr") {
    need(3);
    if (ty.bits == 16) return give(string(is_signed ? "SHRS32(" : "SHRU32(") + in(1) + ", " + rd(o[2], u32t) + ")");
    return give(string(is_signed ? "SHRS" : "SHRU") + bits + "(" + in(1) + ", " + rd(o[2], u32t) + ")");
  }
  if (op == "dp4a" || op == "dp2a") {
    need(4);
    Type a = types.at(0), b = types.at(1);
    return wr(o[0],
              string(op == "dp4a" ? "DP4A("
                     : has("hi")  ? "DP2A(2, "
                                  : "DP2A(0, ") +
                  rd(o[1], u32t) + ", " + rd(o[2], u32t) + ", (s32)" + rd(o[3], u32t) + ", " + (a.kind == 's' ? "1" : "0") + ", " +
                  (b.kind == 's' ? "1" : "0") + ")",
              {'s', 32});
  }
  unknown();
}

}  // namespace ptx
