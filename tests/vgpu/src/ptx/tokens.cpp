#include "tokens.hpp"

#include <cctype>

#include "ptx.hpp"

namespace ptx {

[[noreturn]] void fail(int line, const string &what) { throw Error{"PTX line " + std::to_string(line) + ": " + what}; }

static bool word_char(char c) { return isalnum((unsigned char)c) || c == '_' || c == '.' || c == '$' || c == '%'; }

vector<Token> tokens_of(const string &text) {
  vector<Token> out;
  int line = 1;
  bool fresh = true;  // nothing on this line yet
  for (size_t i = 0; i < text.size();) {
    char c = text[i];
    if (c == '\n') {
      line++, i++, fresh = true;
      continue;
    }
    if (isspace((unsigned char)c) || c == '\0') {
      i++;
      continue;
    }
    if (text.compare(i, 2, "//") == 0) {
      while (i < text.size() && text[i] != '\n') i++;
      continue;
    }
    if (text.compare(i, 2, "/*") == 0) {
      size_t end = text.find("*/", i);
      if (end == string::npos) end = text.size();
      for (; i < end + 2 && i < text.size(); i++) line += text[i] == '\n';
      continue;
    }
    if (fresh && (text.compare(i, 5, ".loc\t") == 0 || text.compare(i, 5, ".loc ") == 0 || text.compare(i, 6, ".file\t") == 0 ||
                  text.compare(i, 6, ".file ") == 0)) {
      while (i < text.size() && text[i] != '\n') i++;
      continue;
    }
    fresh = false;
    if (c == '"') {
      size_t end = i + 1;
      while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
      out.push_back({text.substr(i + 1, end - i - 1), line, 's'});
      i = end + 1;
    } else if (word_char(c)) {
      size_t end = i;
      while (end < text.size() &&
             (word_char(text[end]) || (text[end] == ':' && end + 2 < text.size() && text[end + 1] == ':' && word_char(text[end + 2]))))
        end += text[end] == ':' ? 2 : 1;
      out.push_back({text.substr(i, end - i), line, 'w'});
      i = end;
    } else {
      out.push_back({string(1, c), line, 'p'});
      i++;
    }
  }
  return out;
}

vector<string> split(const string &s, char by) {
  vector<string> out;
  size_t start = 0;
  for (size_t i = 0; i <= s.size(); i++)
    if (i == s.size() || s[i] == by) out.push_back(s.substr(start, i - start)), start = i + 1;
  return out;
}

}  // namespace ptx
