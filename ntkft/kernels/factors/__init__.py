"""Exact kernels from captured factors, every example differentiated once.

inline, views, capture   where a program uses its weights
sites                    what is kept there: operands a, cotangents b
segments, sweep          a reverse sweep that fits in memory
forms                    the exact ways from (a, b) to a kernel, and their cost
blas, xla                the same forms in NumPy and in XLA
host, devices            where steps run and blocks are contracted
planning, method         what is decided beforehand; the method itself
probes                   random features of gradients, for projections
"""
