"""Where a step's time goes, how far each kernel is from what the chip can do, and what to look at next: `gpucnn profile`.

    workload      what is profiled: a model's training step, or one operation        observe    who calls which operation, on what
    cpu, gpu      measured: NumPy's operations, or the kernels                       bounds     worked out for a chip that is not there
    compiled      what the compiler says of a kernel, kept on disk                   memory     what a step takes, by buffer
    timing        warm-up, repetition, median and spread                             roofline   ceilings and verdicts
    counts        FLOPs and bytes of a call                                          correct    no time before a right answer
    against_torch the same operations in PyTorch                                     nsight     NVTX ranges, the commands of ncu and nsys
    records       what a profile is, and its JSON                                    compare    what got slower, beyond the noise
    columns, report, page, trace: a profile as text, as a page, as a trace for Perfetto

A profile comes from one of cpu, gpu and bounds, and everything below that line works on the record alone: it needs no GPU, and a file
that was written on another machine does as well.
"""
