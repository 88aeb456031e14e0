"""Torch to torch: pruning, sparsity, distillation and quantisation-aware training, as values that hold their options.

A pass never changes the module it is given: ``apply`` returns another one. With the same module, data and options
it returns the same weights, on a CPU to the last bit. This room imports torch when it is loaded, so every other room
imports it inside functions only.
"""
