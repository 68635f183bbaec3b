// PTX taken apart: words, numbers, strings and punctuation, with their lines.
#pragma once
#include <string>
#include <vector>

namespace ptx {
using std::string;
using std::vector;

struct Token {
  string s;
  int line;
  char kind;  // 'w' word or number, 'p' punctuation, 's' string
};

[[noreturn]] void fail(int line, const string &what);
vector<Token> tokens_of(const string &text);
vector<string> split(const string &s, char by);

}  // namespace ptx
