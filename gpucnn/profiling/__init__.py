"""`gpucnn profile`: where a step's time goes, how far each kernel is from what the chip can do, and what to look at next.

    what/       workload: a training step as `fit` runs it, or one operation; shapes: those with names
                observe: who calls which operation, on what; operations: a row for each, with its kind, work, check and PyTorch's twin
                work: FLOPs and bytes; launches: the kernels of a call, and their part of its work
                correct: checks results before they are timed; roofline: ceilings and verdicts; memory: what a step needs, by buffer
    measure/    cpu: the operations there; gpu: the kernels, on a bench; timing: warm-up, repetition; statistics: median and spread
                against_torch: the same operations in PyTorch; nsight: ranges, and the commands of ncu and nsys; fma: the peak
    chip/       bounds: computed for a chip that is not present; chips: their data; samples: every kernel, by launches of it
                static: a launch compiled; compiled: the same, kept on disk; sass: the chip's own instructions
    show/       columns, report, page, svg, trace: a profile as text, as a page, as a trace for Perfetto; compare: what got slower
    records     what a profile is, and its JSON
    run, tune   what `gpucnn profile` and `gpucnn tune` do

A profile comes from cpu, gpu or bounds, and everything that shows it works on the record alone: it needs no GPU, and a file from another
machine will do.
"""
