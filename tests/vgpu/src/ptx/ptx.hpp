// PTX as this instrument understands it: parsed, and translated to C.
#pragma once
#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace ptx {

struct Reloc {
  uint64_t offset;
  std::string symbol;
  int64_t addend;
};

struct Var {  // of a module: global, constant or shared
  std::string name;
  char space;  // 'g', 'c', 's'
  uint32_t align = 1;
  uint64_t size = 0;
  bool external = false;
  std::vector<uint8_t> init;  // empty: zeros
  std::vector<Reloc> relocs;
  int index = -1;  // in the tables of the translation, VGSYM or VGSHARED
};

struct Param {
  std::string name;
  uint32_t size, align, offset;
};

struct Function {
  std::string name;
  bool entry = false, defined = false;
  std::vector<Param> params, results;
  uint32_t param_bytes = 0, local_bytes = 0, registers = 0, max_threads = 0, required[3] = {0, 0, 0};
  std::string body;            // C
  std::set<std::string> uses;  // functions called and module variables touched
};

struct Module {
  std::vector<std::string> lines;  // the text, for findings
  std::vector<Var> vars;
  std::vector<Function> functions;
  int globals = 0, shareds = 0;
  bool tensor = false;               // uses what tensor.h declares
  bool clocks = false;               // has mbarriers, barriers for some threads, or wgmma
  std::string code;                  // the whole translation
  std::vector<std::string> refused;  // what could not be translated: fails when it is run
};

struct Error {
  std::string what;
};

Module translate(const std::string &text);
std::string c_name(const std::string &name);

}  // namespace ptx
