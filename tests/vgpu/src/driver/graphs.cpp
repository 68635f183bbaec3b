// Graphs: made by captures, and launched with the order between their branches.
#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "capture.hpp"
#include "user_objects.hpp"
#include "work.hpp"

extern "C" {

CUresult cuGraphCreate(CUgraph *g, unsigned) {
  ENTER;
  *g = new CUgraph_st;
  return CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph g) {
  Farewell farewell;
  ENTER_QUIET;
  NEED(g);
  for (auto &o : g->objects) release(o.first, o.second, farewell);
  delete g;
  return CUDA_SUCCESS;
}
CUresult cuGraphGetNodes(CUgraph g, CUgraphNode *nodes, size_t *n) {
  ENTER;
  if (nodes)
    for (size_t i = 0; i < *n; i++) nodes[i] = i < g->nodes.size() ? (CUgraphNode)g->nodes[i].get() : nullptr;
  if (!nodes) *n = g->nodes.size();
  else *n = std::min(*n, g->nodes.size());
  return CUDA_SUCCESS;
}
CUresult cuGraphNodeGetType(CUgraphNode n, CUgraphNodeType *t) {
  ENTER;
  *t = ((Node *)n)->type;
  return CUDA_SUCCESS;
}
CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *p) {
  ENTER;
  Node *n = (Node *)node;
  if (n->type != CU_GRAPH_NODE_TYPE_KERNEL) return CUDA_ERROR_INVALID_VALUE;
  memset(p, 0, sizeof *p);
  p->func = (CUfunction)n->kernel;
  p->gridDimX = n->where.grid[0], p->gridDimY = n->where.grid[1], p->gridDimZ = n->where.grid[2];
  p->blockDimX = n->where.block[0], p->blockDimY = n->where.block[1], p->blockDimZ = n->where.block[2];
  p->sharedMemBytes = n->where.dynamic_shared;
  p->kernelParams = n->pointers.data();
  return CUDA_SUCCESS;
}
CUresult cuGraphAddDependencies_v2(CUgraph, const CUgraphNode *from, const CUgraphNode *to, const CUgraphEdgeData *, size_t n) {
  ENTER;
  for (size_t i = 0; i < n; i++) ((Node *)to[i])->after.insert(((Node *)from[i])->index);
  return CUDA_SUCCESS;
}
CUresult cuGraphAddEmptyNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n) {
  ENTER;
  Node x;
  for (size_t i = 0; i < n; i++) x.after.insert(((Node *)deps[i])->index);
  *out = add_node(g, std::move(x));
  return CUDA_SUCCESS;
}
static CUresult instantiate(CUgraphExec *out, CUgraph g) {
  NEED(out && g);
  auto *e = new CUgraphExec_st;
  std::vector<int> state(g->nodes.size());
  std::vector<size_t> order;
  bool cycle = false;
  auto visit = [&](auto &self, size_t i) -> void {
    if (state[i] == 2) return;
    if (state[i] == 1) {
      cycle = true;
      return;
    }
    state[i] = 1;
    for (size_t j : g->nodes[i]->after) self(self, j);
    state[i] = 2;
    order.push_back(i);
  };
  for (size_t i = 0; i < g->nodes.size(); i++) visit(visit, i);
  if (cycle) {
    delete e;
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i : order) e->nodes.push_back(*g->nodes[i]);
  for (auto &o : g->objects) o.first->references++, e->objects.push_back(o.first);
  *out = e;
  return CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec *e, CUgraph g, unsigned long long) {
  ENTER;
  UNSAFE;
  return instantiate(e, g);
}
CUresult cuGraphInstantiateWithParams(CUgraphExec *e, CUgraph g, CUDA_GRAPH_INSTANTIATE_PARAMS *p) {
  ENTER;
  UNSAFE;
  CUresult r = instantiate(e, g);
  if (p) p->result_out = r ? CUDA_GRAPH_INSTANTIATE_ERROR : CUDA_GRAPH_INSTANTIATE_SUCCESS;
  return r;
}
CUresult cuGraphInstantiate_v2(CUgraphExec *e, CUgraph g, CUgraphNode *, char *, size_t) {
  ENTER;
  UNSAFE;
  return instantiate(e, g);
}
CUresult cuGraphExecDestroy(CUgraphExec e) {
  Farewell farewell;
  ENTER_QUIET;
  NEED(e);
  for (CUuserObject o : e->objects) release(o, 1, farewell);
  for (int b : e->branches) order::close(b);
  delete e;
  return CUDA_SUCCESS;
}
CUresult cuGraphExecGetFlags(CUgraphExec, cuuint64_t *f) {
  ENTER;
  *f = 0;
  return CUDA_SUCCESS;
}
CUresult cuGraphUpload(CUgraphExec, CUstream s) {
  ENTER;
  STREAM(s);
  return implicit(s, "cuGraphUpload");
}
CUresult cuGraphLaunch(CUgraphExec e, CUstream s) {
  ENTER;
  STREAM(s);
  NEED(e);
  if (CUresult r = implicit(s, "cuGraphLaunch")) return r;
  if (s->capture) {
    for (auto &n : e->nodes) {
      Node copy = n;
      copy.after.clear();
      if (CUresult r = enqueue(s, std::move(copy), "cuGraphLaunch")) return r;
    }
    return CUDA_SUCCESS;
  }
  // A node goes on where one that it waits for has ended, or on a timeline of its own.
  order::Clock &own = before(s);
  order::join(own, e->last);
  const order::Clock base = own;
  std::map<size_t, order::Clock> done;
  std::map<size_t, uint32_t> chains;
  s->chain = 0;
  std::vector<std::pair<int, size_t>> lines;  // a timeline, and the node that it has come to
  size_t branches = 0;
  for (auto &n : e->nodes) {
    order::Clock k = base;
    int line = -1;
    for (size_t d : n.after) order::join(k, done[d]);
    for (auto &l : lines)
      if (line < 0 && n.after.count(l.second)) line = l.first, l.second = n.index;
    if (line < 0) {
      if (lines.empty()) line = timeline(s);
      else {
        if (branches == e->branches.size()) e->branches.push_back(order::open("a branch of a graph on " + order::label(timeline(s))));
        line = e->branches[branches++];
      }
      lines.emplace_back(line, n.index);
    }
    order::join(order::known(line), k);
    running = line;
    chain = n.after.size() == 1 ? chains[*n.after.begin()] : 0;
    if (int r = do_node(n)) return R(r);
    chains[n.index] = chain;
    done[n.index] = order::known(line);
  }
  for (auto &d : done) order::join(order::known(timeline(s)), d.second);
  e->last = order::known(timeline(s));
  return CUDA_SUCCESS;
}
CUresult cuGraphDebugDotPrint(CUgraph g, const char *path, unsigned) {
  ENTER;
  FILE *f = fopen(path, "w");
  if (!f) return CUDA_ERROR_OPERATING_SYSTEM;
  fputs("digraph dot {\n", f);
  for (auto &n : g->nodes) {
    fprintf(f, "node%zu [label=\"%s\"]\n", n->index, n->kernel ? n->kernel->function->name.c_str() : std::to_string(n->type).c_str());
    for (size_t a : n->after) fprintf(f, "node%zu -> node%zu%s\n", a, n->index, n->early ? " [label=\"programmatic\"]" : "");
  }
  fputs("}\n", f);
  fclose(f);
  return CUDA_SUCCESS;
}

}  // extern "C"
