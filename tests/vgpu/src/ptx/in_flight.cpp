// The registers of wgmma, which it goes on reading and writing after the instruction: sums may not be touched, and A's not written to,
// before a wgmma.wait_group that covers their group. Which those are is known before the function is translated; beside each there is a
// word, in the array flight_, that says what is under way in it, and whatever touches the register looks there first. A copy of a sum
// counts as the sum: copies are how the compiler passes a register on from one turn of a loop to the next, and the machine code has none of
// them.
#include "translator.hpp"

namespace ptx {

// From the first instruction of a function to its end: which registers wgmma takes, and which their sums are copied to.
void Translator::find_flights() {
  flights.clear(), fresh.clear();
  vector<std::pair<string, string>> copies;
  size_t i = at;
  auto words = [&] {  // of one operand: all of a list, or nothing
    bool list = t[i].s == "{";
    for (int depth = 0; i < t.size(); i++) {
      if (t[i].s == "{") depth++;
      else if (t[i].s == "}") depth--;
      else if (!depth && (t[i].s == "," || t[i].s == ";")) return;
      else if (list && t[i].kind == 'w') flights.emplace(t[i].s, (int)flights.size());
    }
  };
  for (int depth = 1; depth && i < t.size(); i++) {
    if (t[i].s == "{") depth++;
    if (t[i].s == "}") depth--;
    if (t[i].s.compare(0, 15, "wgmma.mma_async") == 0) {
      i++, words();
      if (t[i].s == ",") i++, words();
    } else if (t[i].s.compare(0, 4, "mov.") == 0 && i + 4 < t.size() && t[i + 2].s == "," && t[i + 4].s == ";")
      copies.emplace_back(t[i + 1].s, t[i + 3].s);
  }
  for (size_t before = 0; before != flights.size();) {
    before = flights.size();
    for (auto &c : copies)
      if (flights.count(c.second)) flights.emplace(c.first, (int)flights.size());
  }
  if (!flights.empty()) out += "u32 flight_[" + std::to_string(flights.size()) + "] = {0};\n";
}

// Before an instruction that is not wgmma.
void Translator::watch(const vector<Operand> &o) {
  const string &op = parts[0];
  if (o.empty() || op == "wgmma" || op == "bra" || op == "call") return;
  auto flight = [&](const string &name) { return "flight_[" + std::to_string(flights[name]) + "]"; };
  auto touched = [&](const Token &x, const char *how) {
    if (x.kind == 'w' && flights.count(x.s))
      out += "if (" + flight(x.s) + ") vg_wgmma_" + how + "(&" + flight(x.s) + ", \"" + x.s + "\", " + here() + "); ";
  };
  if (op == "mov" && o.size() == 2 && o[0].size() == 1 && o[1].size() == 1) {
    const string &d = o[0][0].s, &a = o[1][0].s;
    if (fresh.count(a)) fresh.insert(d);  // a constant is in no register yet
    else fresh.erase(d);
    if (flights.count(d)) {
      string from = flights.count(a) ? flight(a) : "0";
      out += "if (" + flight(d) + " | " + from + ") vg_wgmma_copied(&" + flight(d) + ", " + from + ", \"" + d + "\", " + here() + "); ";
    }
    return;
  }
  bool writes = op != "st" && op != "red" && op != "bar" && op != "cp" && op != "mbarrier" && op != "stmatrix";
  for (size_t i = writes ? 1 : 0; i < o.size(); i++)
    for (auto &x : o[i]) touched(x, "read");
  if (writes)
    for (auto &x : o[0]) {
      touched(x, "written");
      if (x.kind == 'w' && x.s[0] == '%') fresh.insert(x.s);
    }
}

// Behind a wgmma: its registers are under way.
void Translator::take_off(const vector<Operand> &a, const vector<Operand> &d) {
  auto list = [&](const vector<Operand> &registers, const char *kind) {
    for (auto &x : registers) {
      string flight = "flight_[" + std::to_string(flights[x[0].s]) + "]";
      if (*kind == 'd') out += "if (" + flight + ") vg_wgmma_summed(&" + flight + ", \"" + x[0].s + "\", " + here() + "); ";
      out += flight + " = vg_wgmma_flight('" + kind + "'); ";
    }
  };
  list(a, "a"), list(d, "d");
}

}  // namespace ptx
