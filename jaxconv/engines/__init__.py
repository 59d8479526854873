"""Ways to evaluate eqs. 2-4 on an input and a weight, one file each.

An engine is a module with three functions of one `Convolution`, `output`, `input_gradient` and `weight_gradient`, which
return their sums in its `accumulate` dtype; who calls them rounds.
"""
