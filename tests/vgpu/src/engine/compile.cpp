#include "compile.hpp"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <vector>

#include "options.hpp"

extern char **environ;

namespace vg {

using std::string;

static string hash_of(const string &s) {
  uint64_t a = 1469598103934665603ull, b = 0x9e3779b97f4a7c15ull;
  for (unsigned char c : s) a = (a ^ c) * 1099511628211ull, b = (b + c) * 6364136223846793005ull + 1442695040888963407ull;
  char out[40];
  snprintf(out, sizeof out, "%016llx%016llx", (unsigned long long)a, (unsigned long long)b);
  return out;
}

static bool write_file(const string &path, const string &content) {
  string temporary = path + "." + std::to_string(getpid());
  std::ofstream f(temporary, std::ios::binary);
  f << content;
  f.close();
  return f && rename(temporary.c_str(), path.c_str()) == 0;
}

static bool exists(const string &path) { return access(path.c_str(), R_OK) == 0; }

static string own_folder() {
  Dl_info info;
  dladdr((void *)&own_folder, &info);
  char *real = realpath(info.dli_fname, nullptr);
  string s = real ? real : info.dli_fname;
  free(real);
  return s.substr(0, s.rfind('/'));
}

static bool run(const std::vector<string> &command, const string &log_path) {
  std::vector<char *> argv, env;
  for (auto &c : command) argv.push_back((char *)c.c_str());
  argv.push_back(nullptr);
  for (char **e = environ; *e; e++)
    if (strncmp(*e, "LD_PRELOAD=", 11)) env.push_back(*e);
  env.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 2, log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  pid_t pid;
  int failed = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), env.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed) return false;
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return false;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool compile(const ptx::Module &m, const string &text, string &so, string &path, string &error) {
  mkdir(options().cache.c_str(), 0755);
  auto text_of = [](const char *name) {
    std::ifstream f(own_folder() + name);
    std::stringstream s;
    s << f.rdbuf();
    return s.str();
  };
  static const string header = text_of("/device.h"), more = text_of("/tensor.h");
  string key = hash_of(m.code + header + (m.tensor ? more : "") + options().optimize + options().march), base = options().cache + "/" + key;
  so = base + ".so", path = base + ".ptx";
  if (!exists(path)) write_file(path, text);
  for (auto &r : m.refused) fprintf(report_file(), "vgpu: not supported, and fails when it is reached: %s (%s)\n", r.c_str(), path.c_str());
  if (!exists(so)) {
    write_file(base + ".c", m.code);
    string temporary = so + "." + std::to_string(getpid()), folder = own_folder(), messages = base + ".log." + std::to_string(getpid());
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    bool ok = run({options().compiler, "-std=gnu11", options().optimize, "-fPIC", "-shared", "-w", "-march=" + options().march,
                   "-ffp-contract=off", "-fno-strict-aliasing", "-fno-math-errno", "-fno-trapping-math", "-fwrapv", "-I" + folder,
                   base + ".c", "-o", temporary, "-L" + folder, "-l:libcuda.so.1", "-lm"},
                  messages);
    clock_gettime(CLOCK_MONOTONIC, &b);
    log("compiled %s.c in %.2f s", base.c_str(), (b.tv_sec - a.tv_sec) + 1e-9 * (b.tv_nsec - a.tv_nsec));
    if (!ok || rename(temporary.c_str(), so.c_str())) {
      error = "the translation does not compile: see " + messages;
      return false;
    }
    unlink(messages.c_str());
  }
  return true;
}

}  // namespace vg
